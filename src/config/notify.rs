//! `on_failure`, `on_recovery`, `on_dead`, `expected_by` and `[notify]`: who is told, and the task, queue and pool
//! of taskd's own that do it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::build::{Builder, Layers};
use super::report::{Fault, FaultKind};
use super::section::{Parsed, Section};
use super::settings::{DEFAULT, Notify, Pool, Queue, Recycle, Settings};
use crate::model::notice::{Kind, NOTIFY, Rule, Tell};
use crate::model::task::{Program, RetryPolicy, Stdin, Task};

/// Most different targets of a config: each is handed to the process that tells them.
pub const MAX_TARGETS: usize = 256;

/// Children of the pool that tells: one that waits for a slow server holds up one other.
const PROCESSES: u32 = 2;

/// The longest pause before a notice is tried again, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 3_600_000;

/// What a notice may take, in milliseconds; whoever tells it has a bound of its own below this.
const TIME_LIMIT_MS: u64 = 90_000;

/// Records of notices are kept so long, in milliseconds.
const KEPT_MS: u64 = 7 * 86_400_000;

/// `EX_TEMPFAIL`: the exit code with which a notice asks to be tried again.
pub const TRY_AGAIN: i32 = 75;

/// What the environment variables begin with that hold the targets, each with a number behind it.
pub const TARGET: &str = "TASKD_TARGET_";

/// Ends the name of the variable with a webhook's address.
pub const URL: &str = "_URL";

/// Ends the name of the variable with a webhook's secret.
pub const SECRET: &str = "_SECRET";

/// One who is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// As messages name it: the kind, whom, and a hash of all of it.
    pub name: String,
    /// How.
    pub way: Way,
}

/// How somebody is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A program is started.
    Exec(Vec<String>),
    /// An address gets a POST; it stands in a variable of its own, as may its secret.
    Webhook,
    /// A mail.
    Mail {
        /// To whom.
        to: Vec<String>,
        /// Of whom.
        from: String,
        /// Who takes it.
        sendmail: String,
    },
}

/// The targets of a config while they are collected.
struct Targets {
    from: String,
    sendmail: String,
    retry: RetryPolicy,
    /// Name, the target, and the variables beside it.
    all: BTreeMap<String, (Target, BTreeMap<&'static str, String>)>,
}

const RULES: [&str; 3] = ["on_failure", "on_recovery", "on_dead"];

impl<'a> Builder<'a, '_> {
    /// Who is told of each task, and what tells them.
    pub(super) fn notices(&mut self, settings: &mut Settings) -> Option<()> {
        let notify = self.all("notify").next();
        let at = Layers { own: notify, base: None, built_in: self.built_in.get("notify")? };
        let node = settings.taskd.node.as_str();
        let host: String =
            node.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        let from = at.text("from").unwrap_or_else(|| format!("taskd@{}", host.trim_matches(['-', '.'])));
        self.origins.table("[notify]", &at, &[("from", super::tree::quote(&from))]);
        settings.notify = Notify { output_lines: at.small("output_lines").unwrap_or(0) };
        for table in ["notify", "defaults", "tasks"] {
            for section in self.all(table) {
                self.rules_are_whole(section);
            }
        }
        let retry = RetryPolicy {
            max_retries: at.small("max_retries").unwrap_or(0),
            delay_ms: at.number("retry_delay").unwrap_or(0),
            backoff: true,
            backoff_max_ms: LONGEST_PAUSE_MS,
            jitter: false,
            retry_on: vec![TRY_AGAIN],
            success_on: Vec::new(),
        };
        let mut targets = Targets { from, sendmail: at.text("sendmail")?, retry, all: BTreeMap::new() };
        let base = self.all("defaults").next();
        for section in self.all("tasks") {
            let layers = [Some(section), base, notify];
            let mut rule = |key| rule(&layers, key, &mut targets);
            let tell = Tell {
                on_failure: rule("on_failure"),
                on_recovery: rule("on_recovery"),
                on_dead: rule("on_dead"),
                expected_by: self.expected(section, base),
            };
            if !tell.expected_by.is_empty() && tell.rule(Kind::Missed).is_none() {
                let from = [Some(section), base].into_iter().flatten().find(|s| s.has("expected_by"));
                let from = from.unwrap_or(section);
                let message = "nobody would be told that it did not run";
                let fault = Fault::new(
                    FaultKind::Reference,
                    from.place("expected_by"),
                    from.path("expected_by"),
                    message,
                );
                self.check.fault(fault.help("add on_failure = { mail = \"…\" } here or under [notify]"));
            }
            if let Some(task) = settings.tasks.get_mut(&section.name) {
                task.tell = tell;
            }
        }
        if targets.all.len() > MAX_TARGETS
            && let Some(section) = notify.or(base).or_else(|| self.all("tasks").next())
        {
            let message =
                format!("{} different targets of notices; at most {MAX_TARGETS} can be", targets.all.len());
            let fault = Fault::new(FaultKind::Reference, &section.at, section.path(""), message);
            self.check.fault(fault.help("tell one program or one address, which passes them on"));
        }
        if !targets.all.is_empty() {
            declare(settings, targets);
        }
        Some(())
    }

    /// Each rule of a table tells somebody.
    fn rules_are_whole(&mut self, section: &Section) {
        for key in RULES {
            let Some(set) = section.get(key) else { continue };
            let mut refuse = |message: String, help: &str| {
                let fault = Fault::new(FaultKind::Reference, &set.key_at, section.path(key), message);
                self.check.fault(fault.help(help));
            };
            let Some(table) = set.table() else { continue };
            // One that has a fault was told of before.
            let written = ["exec", "webhook", "mail"].iter().any(|k| set.shown.contains(k));
            if !["exec", "webhook", "mail"].iter().any(|k| table.contains_key(k)) && !written {
                let help = "add mail = \"root\", webhook = \"https://…\" or exec = [\"/path/of/a/program\"]";
                refuse(format!("`{key}` tells nobody"), help);
            }
            if table.contains_key("webhook_secret") && !table.contains_key("webhook") {
                refuse("`webhook_secret` has no effect without `webhook`".to_owned(), "remove it");
            }
        }
    }

    /// Minutes since midnight.
    fn expected(&mut self, section: &Section, base: Option<&Section>) -> Vec<u32> {
        let set = [Some(section), base].into_iter().flatten().find_map(|s| s.get("expected_by"));
        let Some(Parsed::Times(times)) = set.map(|s| &s.value) else { return Vec::new() };
        times.clone()
    }
}

/// The rule of a key: of the first table that says one. `false` says that there is none.
fn rule(layers: &[Option<&Section>], key: &str, targets: &mut Targets) -> Option<Rule> {
    let set = layers.iter().flatten().find(|s| s.has(key)).and_then(|s| s.get(key))?;
    let table = set.table()?;
    let text = |key: &str| if let Some(Parsed::Text(s)) = table.get(key) { Some(s.clone()) } else { None };
    let many = |key: &str| -> Option<Vec<String>> {
        let Some(Parsed::Many(list)) = table.get(key) else { return None };
        Some(list.iter().map(|(s, _)| s.clone()).collect())
    };
    let mut names = Vec::new();
    if let Some(argv) = many("exec") {
        let shown = argv.first().cloned().unwrap_or_default();
        names.push(targets.add("exec", &shown, Way::Exec(argv), BTreeMap::new()));
    }
    if let Some(url) = text("webhook") {
        let host = url.split_once("://").map_or("", |(_, rest)| rest);
        let host: String = host.chars().take_while(|c| !matches!(c, '/' | '?' | '#' | '$')).collect();
        let mut beside = BTreeMap::from([(URL, url)]);
        if let Some(secret) = text("webhook_secret") {
            beside.insert(SECRET, secret);
        }
        names.push(targets.add("webhook", &host, Way::Webhook, beside));
    }
    if let Some(to) = many("mail") {
        let shown = to.join(",");
        let way = Way::Mail { to, from: targets.from.clone(), sendmail: targets.sendmail.clone() };
        names.push(targets.add("mail", &shown, way, BTreeMap::new()));
    }
    let after = match table.get("after") {
        Some(Parsed::Number(n)) => u32::try_from(*n).unwrap_or(1),
        _ => 1,
    };
    let at_most =
        if let Some(Parsed::Rate(n, period)) = table.get("at_most") { Some((*n, *period)) } else { None };
    (!names.is_empty()).then_some(Rule { targets: names, after, at_most })
}

impl Targets {
    /// The name of a target; the same for the same one.
    fn add(&mut self, kind: &str, shown: &str, way: Way, beside: BTreeMap<&'static str, String>) -> String {
        let all = serde_json::to_string(&(&way, &beside)).unwrap_or_default();
        let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, all.as_bytes()).simple().to_string();
        let mut shown = shown.to_owned();
        shown.truncate(shown.floor_char_boundary(64));
        let name = format!("{kind}:{shown}#{}", hash.get(..8).unwrap_or_default());
        self.all.insert(name.clone(), (Target { name: name.clone(), way }, beside));
        name
    }
}

/// The task, the queue and the pool that tell. The pool has the user of those that run the config's own tasks.
fn declare(settings: &mut Settings, targets: Targets) {
    let runners = |p: &&Pool| p.worker.is_none();
    let model = settings.pools.get(DEFAULT).filter(runners).or_else(|| settings.pools.values().find(runners));
    let model = model.or_else(|| settings.pools.get(DEFAULT));
    let pool = Pool {
        user: model.and_then(|p| p.user.clone()),
        group: model.and_then(|p| p.group.clone()),
        supplementary_groups: model.map(|p| p.supplementary_groups.clone()).unwrap_or_default(),
        recycle: Recycle::default(),
        ..Pool::new(NOTIFY, PROCESSES)
    };
    settings.pools.insert(NOTIFY.to_owned(), pool);
    let (pool, name) = (NOTIFY.to_owned(), NOTIFY.to_owned());
    let queue = Queue {
        name,
        pool,
        weight: 1,
        strict: false,
        concurrency: None,
        max_length: None,
        rate: None,
        shared: false,
    };
    settings.queues.insert(NOTIFY.to_owned(), queue);
    // This very program, whatever file it was started from and whatever stands there now.
    let argv = vec!["/proc/self/exe".to_owned(), "@notify".to_owned()];
    let mut task = Task {
        queue: Some(NOTIFY.to_owned()),
        priority: 9,
        retry: targets.retry,
        time_limit_ms: Some(TIME_LIMIT_MS),
        result_expires_ms: KEPT_MS,
        stdin: Stdin::Json,
        allow: Some(Vec::new()),
        remote: false,
        external: false,
        ..Task::new(NOTIFY, Program::Exec(argv))
    };
    // Whom a webhook's server must have its certificate from, where that is not the machine's own list.
    task.surroundings.pass_environment =
        ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().map(|name| (*name).to_owned()).collect();
    if let Some(zone) = &settings.taskd.timezone {
        // Times of day are meant there, and told so.
        task.surroundings.environment.insert("TZ".to_owned(), zone.clone());
    }
    for (n, (target, beside)) in targets.all.into_values().enumerate() {
        let name = format!("{TARGET}{n}");
        for (end, value) in beside {
            task.surroundings.environment.insert(format!("{name}{end}"), value);
        }
        // A text with ${credential:…} in it would be expanded.
        let text =
            serde_json::to_string(&target).unwrap_or_default().replace("${credential:", "$${credential:");
        task.surroundings.environment.insert(name, text);
    }
    settings.tasks.insert(NOTIFY.to_owned(), task);
}

/// What is wrong with a webhook's address, and what to do; references to credentials stand for one letter.
pub(super) fn url_fault(url: &str) -> Option<(&'static str, &'static str)> {
    let mut plain = String::with_capacity(url.len());
    for piece in super::credential::pieces(url).ok()? {
        plain.push_str(match piece {
            super::credential::Piece::Text(text) => text,
            super::credential::Piece::Credential(_) => "x",
        });
    }
    if plain == "x" && plain != url {
        // The whole address is a credential: it is looked at when it is used.
        return None;
    }
    let rest = plain.strip_prefix("https://").or_else(|| plain.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Some(("is no http or https address", "write it as \"https://host/path\""));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        let help = "put the secret into a credential: webhook = \"https://host/${credential:NAME}\", or use webhook_secret";
        return Some(("holds a user or a password, which would be shown", help));
    }
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(h, port)| if port.ends_with(']') { authority } else { h });
    let bad = plain.chars().any(|c| c.is_control() || c == ' ' || !c.is_ascii()) || plain.contains('#');
    if host.is_empty() || bad || plain.parse::<hyper::Uri>().is_err() {
        return Some((
            "is no address of a server",
            "write it as \"https://host/path\", other characters as %XX",
        ));
    }
    None
}

/// Whether this can be a mail address that goes into a header as it is: a user of this machine, or one with a
/// domain.
#[must_use]
pub fn is_mail(address: &str) -> bool {
    let (local, domain) = match address.rsplit_once('@') {
        Some((local, domain)) => (local, Some(domain)),
        None => (address, None),
    };
    let atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~-.".contains(c);
    let host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let dotted =
        |s: &str| !s.is_empty() && !s.starts_with(['.', '-']) && !s.ends_with('.') && !s.contains("..");
    address.len() <= 254
        && dotted(local)
        && local.chars().all(atom)
        && domain.is_none_or(|d| dotted(d) && d.chars().all(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, load_texts};

    fn loaded(text: &str) -> Result<Settings, String> {
        let env = Env::made("me", 1000, &[]);
        load_texts(&[("taskd.toml", text)], &env).map(|l| l.settings).map_err(|r| r.render(false))
    }

    fn refused(text: &str, says: &[&str]) {
        let report = loaded(text).map(|_| ()).expect_err(text);
        for word in says {
            assert!(report.contains(word), "no {word:?} in\n{report}");
        }
        assert_eq!(report.matches("error").count(), 1, "more than one fault:\n{report}");
    }

    #[test]
    fn the_nearest_rule_counts_whole_and_false_is_none() {
        let s = loaded(
            "[notify]\non_failure = { mail = 'root', after = 3, at_most = '1/h' }\n\
             on_recovery = { mail = ['root', 'ops@example.org'] }\n\
             [tasks.plain]\ncommand = 'x'\nexpected_by = ['18:00', '06:00', '6:00']\n\
             [tasks.own]\ncommand = 'x'\non_failure = { exec = ['/bin/tell', 'a b'], webhook = 'http://h/x' }\n\
             [tasks.silent]\ncommand = 'x'\non_failure = false\non_recovery = false\n",
        )
        .unwrap();
        let tell = |task: &str| s.tasks[task].tell.clone();
        let rule = tell("plain").on_failure.unwrap();
        assert_eq!((rule.after, rule.at_most, rule.targets.len()), (3, Some((1, 3_600_000)), 1));
        assert!(rule.targets[0].starts_with("mail:root#"), "{rule:?}");
        assert_eq!(tell("plain").expected_by, [360, 1_080]);
        let own = tell("own").on_failure.unwrap();
        assert_eq!((own.after, own.at_most, own.targets.len()), (1, None, 2));
        assert!(tell("own").on_recovery.is_some() && tell("silent").is_empty());
        assert_eq!(tell(NOTIFY), Tell::default(), "a notice leads to no notice");
        let variables = &s.tasks[NOTIFY].surroundings.environment;
        assert_eq!(variables.values().filter(|v| v.as_str() == "http://h/x").count(), 1, "{variables:?}");
        assert_eq!(s.notify.output_lines, 50);
        assert_eq!(s.pool_of(NOTIFY).map(|p| p.name.as_str()), Some(NOTIFY));
    }

    #[test]
    fn nothing_is_declared_where_nobody_is_told() {
        let s = loaded("[tasks.t]\ncommand = 'x'\n").unwrap();
        assert!(!s.tasks.contains_key(NOTIFY) && !s.pools.contains_key(NOTIFY));
    }

    #[test]
    fn what_cannot_be_told_is_refused_where_it_stands() {
        let task = |rule: &str| format!("[tasks.t]\ncommand = 'x'\non_failure = {rule}\n");
        refused(&task("{ after = 2 }"), &["tells nobody", "taskd.toml:3"]);
        refused(&task("true"), &["table", "false"]);
        refused(&task("{ webhook = 'ftp://h/' }"), &["http", "taskd.toml:3:26"]);
        refused(&task("{ webhook = 'https://a:b@h/' }"), &["credential"]);
        refused(&task("{ webhook = 'https://' }"), &["address"]);
        refused(&task("{ exec = ['tell'] }"), &["absolute path"]);
        refused(&task("{ mail = \"a@b\\nBcc: c@d\" }"), &["mail address"]);
        refused(&task("{ mail = ['ok@x.org', 'no no'] }"), &["no no"]);
        refused(&task("{ mail = 'root', at_most = 5 }"), &["at_most"]);
        refused(
            &task("{ mail = 'root', webhook_secret = '${credential:k}' }"),
            &["no effect without `webhook`"],
        );
        refused(&task("{ webhook = 'http://h/', webhook_secret = 'abc' }"), &["credential"]);
        refused(
            "[tasks.t]\ncommand = 'x'\nexpected_by = '06:00'\n",
            &["nobody would be told", "taskd.toml:3"],
        );
        refused("[tasks.'taskd.notify']\ncommand = 'x'\n", &["taskd's own"]);
        refused("[queues.'taskd.x']\n", &["taskd's own"]);
    }

    #[test]
    fn addresses() {
        for good in ["root", "a@b", "first.last+tag@sub.example.org", "o'hara@example.org"] {
            assert!(is_mail(good), "{good}");
        }
        for bad in [
            "",
            "@",
            "a@",
            "@b",
            "-a@b",
            "a b@c",
            "a@b@c",
            "a,b@c",
            "<a@b>",
            "a@b\r\nX: y",
            "a@b.",
            "ä@b",
            "a..b@c",
        ] {
            assert!(!is_mail(bad), "{bad:?}");
        }
        for good in [
            "http://h",
            "https://h:8443/a?b=c",
            "http://[::1]:80/",
            "https://h/${credential:x y}",
            "${credential:all}",
        ] {
            assert_eq!(url_fault(good), None, "{good}");
        }
        for bad in
            ["h", "HTTP//h", "https:///x", "https://h /", "https://u:p@h/", "http://h/ä", "https://h/#f", "x"]
        {
            assert!(url_fault(bad).is_some(), "{bad:?}");
        }
    }
}
