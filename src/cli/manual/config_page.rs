//! taskd.toml(5), from the table of keys that the schema and the checks are made from, too.

use super::roff::Page;
use crate::config::keys::{Key, Kind, TABLES, TableSpec, When};
use crate::config::{NOT_YET, PARAM};
use crate::model::name;
use crate::model::params::{MAX_ARG, MAX_ARGV};

/// A whole config; a test checks it.
const EXAMPLE: &str = include_str!("../../../packaging/man/example.toml");

const DESCRIPTION: &str = "\
The config of taskd(1), in TOML. An empty file is a valid one: every key has a default, or says here that it has none. \
`taskd check` prints every fault at once, with file, line and column; a key that is not known is a fault.

    taskd check                 check the files
    taskd config --show-origin  print every value and where it comes from
    systemctl reload taskd      make a change count; running tasks are not touched

A reload with faults changes nothing and says so. What needs a restart is refused by a reload, by name: `broker`, \
`results`, `state_dir`, `node`, `socket` and `user` of `[taskd]`. `taskd config --schema` prints a JSON Schema, with \
which editors complete and explain the file.";

const FILES: &str = "\
The file is the one that `--config` names, else the one in `$TASKD_CONFIG`, else `/etc/taskd.toml`. After it the files \
`*.toml` of the directory of the same name with `.d` in place of `.toml` are read (`/etc/taskd.d/`), in the order of \
their names. What a later file says wins, key by key, so a file there may change one key of a table that another file \
declares. `[[routes]]` of a later file come before those of an earlier one. `--state-dir` and `--socket` of `taskd run` \
win over every file.

A task takes a key from its own table, else from `[defaults]`, else the default that is told here. Tables of environment \
variables are joined name by name.

Where taskd is started as root, the files and the directories above them must belong to root and be writable by nobody \
else: whoever writes them runs commands as root.";

const ADDRESSES: &str = "\
An address of Redis is `redis://USER:PASSWORD@HOST:PORT/DATABASE`; `rediss://` is the same over TLS, `unix:///PATH` a socket, and \
`redis+sentinel://HOST:PORT,HOST:PORT/DATABASE?master=NAME` asks sentinels. Valkey is spoken to alike, by `valkey://` and \
`valkeys://`. A Celery app is given the same address as `broker_url` and `result_backend`. Options follow a `?`, with `&` between \
them, as kombu and redis-py name them:";

const TASKS: &str = "\
A task has a `command`, or an `exec`, or neither where the queue's pool has a `worker` or a `celery_app`, or where it is \
`external`: then Celery workers run it. Names of such tasks may be \
patterns: `[tasks.\"shop.*\"]` declares all that begin so, and the longest pattern that fits is taken.

Arguments never pass through a shell's parser. In `exec`, `{name}` is replaced inside its element, which stays one \
element whatever the value is; `{{` and `}}` are braces. A value that begins with - is refused where the placeholder \
begins its element, unless `allow_dash` is set. Without placeholders positional arguments are appended, after `--` \
unless `dash_dash` is off. In `command`, positional arguments are `$1`, `$2` and so on, and each parameter is an \
environment variable of its name.

With `params` declared, arguments that are unknown, missing or of another type are refused when the message is \
enqueued, all of them in one answer. Positional arguments bind to parameters in the order of their declaration.";

const PROGRAMS: &str = "\
A program starts with an environment of its own: `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG` if taskd has it, \
what `pass_environment`, `environment_file` and `environment` add (later ones win), its parameters, and

* `TASKD_ID`, `TASKD_TASK`, `TASKD_QUEUE` :: The message's id, the task's name, the queue.
* `TASKD_ATTEMPT` :: The number of this attempt, from 1.
* `TASKD_NODE`, `TASKD_INSTANCE` :: This node's name, and a value by which what an earlier life of taskd left behind is \
found.

Exit code 0 is a success, as are those of `success_on`. Exit code 75 (EX_TEMPFAIL) asks to be run again, and so do those of \
`retry_on`; every other failure is tried again too where `retry_on` is empty. `max_retries` bounds all of that. The result \
is the trimmed standard output, or what `result` says. When the attempt ends, however it ends, every process that it \
started is ended with it.";

/// The page.
#[must_use]
pub fn page(date: &str) -> String {
    let mut page = Page::new("taskd.toml", 5, date, "the config of taskd");
    page.section("SYNOPSIS");
    page.paragraph("`/etc/taskd.toml`, `/etc/taskd.d/*.toml`");
    page.section("DESCRIPTION");
    page.prose(DESCRIPTION);
    page.section("FILES AND PRECEDENCE");
    page.prose(FILES);
    page.section("VALUES");
    page.prose(&values());
    page.section("TABLES");
    page.paragraph("Keys are told with what their value must be, and their default where there is one.");
    for spec in TABLES {
        table(&mut page, spec);
    }
    page.section("ENVIRONMENT AND EXIT CODES OF PROGRAMS");
    page.prose(PROGRAMS);
    page.paragraph(&format!(
        "One argument has at most {} bytes, all of them together {}; that is the kernel's bound and not \
         taskd's choice.",
        size(MAX_ARG as u64),
        size(MAX_ARGV as u64)
    ));
    page.section("EXAMPLE");
    page.example(EXAMPLE.lines());
    page.section("SEE ALSO");
    page.paragraph("taskd(1), taskd-worker(7), systemd.exec(5)");
    page.into_text()
}

fn values() -> String {
    format!(
        "\
* duration :: A text of numbers with units, as `\"90s\"`, `\"5m\"`, `\"1h 30m\"` or `\"1.5h\"`. Units are `ms`, `s`, `m`, `h`, \
`d`, `w`, and their names (`minutes`). Months and years have no fixed length and are refused, as is a number alone.
* size :: A number of bytes, or a text with `K`, `M`, `G` or `T`, as `\"300M\"`: powers of 1024, as systemd reads them.
* rate :: A count and a period, as `\"10/m\"`; periods are `/s`, `/m`, `/h` and `/d`.
* share :: A text as `\"50%\"`; of CPU time `\"200%\"` is two CPUs.
* name :: Letters, digits and `_` `.` `:` `-`, the first one a letter, a digit or `_`, at most {} bytes.
* users and groups :: Users by name, groups as `\"@name\"`, in a list.
* argv :: A list of texts: the program, then its arguments. A program without `/` is looked for in `PATH`.
* pattern :: Over task names: `*` is any run of characters, dots too, and `?` any one.",
        name::MAX_LEN
    )
}

fn table(page: &mut Page, spec: &TableSpec) {
    page.part(&format!("`{}`", spec.header()));
    let mut text = spec.doc.to_owned();
    if spec.when == When::Later {
        text.push_str(&format!(" {}.", later()));
    }
    if !spec.required.is_empty() {
        let required: Vec<String> = spec.required.iter().map(|k| format!("`{k}`")).collect();
        text.push_str(&format!(" Required: {}.", required.join(", ")));
    }
    page.paragraph(&text);
    match spec.name {
        // The same keys, told once.
        "defaults" => return page.paragraph("It takes every key of `[tasks.NAME]`."),
        "tasks" => page.prose(TASKS),
        _ => {}
    }
    keys(page, spec.keys, "", spec.when == When::Later);
    if spec.name == "taskd" {
        page.prose(ADDRESSES);
        for (name, text) in crate::config::redis::OPTIONS {
            page.item(&format!("?`{name}`="), &format!("{text}."));
        }
    }
}

fn later() -> String {
    let mut chars = NOT_YET.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// `told`: it was said already that none of them does anything yet.
fn keys(page: &mut Page, keys: &[Key], before: &str, told: bool) {
    for key in keys {
        let name = format!("{before}{}", key.name);
        let mut text = key.doc.to_owned();
        if key.when == When::Later && !told {
            text.push_str(&format!(" {}.", later()));
        }
        let told = told || key.when == When::Later;
        let default =
            if key.default.is_empty() { String::new() } else { format!(" Default: `{}`.", key.default) };
        page.item(&format!("`{name}` = {}", kind(key)), &format!("{text}{default}"));
        match key.kind {
            Kind::Table(inner) | Kind::BoolOrTable(inner) | Kind::TableOrFalse(inner) => {
                self::keys(page, inner, &format!("{name}."), told)
            }
            Kind::Steps => self::keys(page, crate::config::keys::STEP, &format!("{name}."), told),
            Kind::Params => self::keys(page, PARAM, &format!("{name}.NAME."), told),
            _ => {}
        }
    }
}

/// What a value must be, in words.
fn kind(key: &Key) -> String {
    let words = |w: &[&str]| w.iter().map(|w| format!("`\"{w}\"`")).collect::<Vec<_>>().join(" | ");
    match key.kind {
        // These are of the type of their parameter, whatever it is.
        Kind::Text | Kind::Texts if PARAM.iter().any(|p| std::ptr::eq(p, key)) => {
            if key.name == "one_of" {
                "list of values".to_owned()
            } else {
                "value".to_owned()
            }
        }
        Kind::Text => "text".to_owned(),
        Kind::Name => "name".to_owned(),
        Kind::Glob => "pattern".to_owned(),
        Kind::Path => "absolute path".to_owned(),
        Kind::SocketPath => "absolute path, at most 107 bytes".to_owned(),
        Kind::Zone => "time zone, as `\"Europe/Berlin\"`".to_owned(),
        Kind::User => "user".to_owned(),
        Kind::GroupName => "group".to_owned(),
        Kind::Groups => "list of groups".to_owned(),
        Kind::People => "users and groups".to_owned(),
        Kind::Bool => "`true` | `false`".to_owned(),
        Kind::Int(min, max) => format!("number, {}", range(min.to_string(), max.to_string())),
        Kind::Number(min, max) if min == f64::MIN && max == f64::MAX => "number".to_owned(),
        Kind::Number(min, max) => format!("number, {}", range(min.to_string(), max.to_string())),
        Kind::Duration(min, max) => format!("duration, {}", range(duration(min), duration(max))),
        Kind::Size(min, max) => format!("size, {}", range(size(min), size(max))),
        Kind::SizeOrTimes => "size, or a multiple as `\"2x\"`".to_owned(),
        Kind::Rate => "rate".to_owned(),
        Kind::Choice(all) => words(all),
        Kind::Address(all, schemes) => {
            let schemes: Vec<String> = schemes.iter().map(|s| format!("`{s}://`")).collect();
            format!("{} ({} are {NOT_YET})", words(all), schemes.join(", "))
        }
        Kind::Argv => "argv".to_owned(),
        Kind::Texts => "list of texts".to_owned(),
        Kind::Names => "list of names".to_owned(),
        Kind::Paths => "list of absolute paths".to_owned(),
        Kind::Codes => "list of exit codes, 1 to 255".to_owned(),
        Kind::Signal => "signal, as `\"SIGTERM\"`".to_owned(),
        Kind::Umask => "octal text".to_owned(),
        Kind::Environment => "table of texts".to_owned(),
        Kind::EnvironmentNames => "list of names of variables".to_owned(),
        Kind::Credentials => "list of names of credentials".to_owned(),
        Kind::Params => "table, each name with its type, or with a table of these keys".to_owned(),
        Kind::Cron => "crontab(5) expression".to_owned(),
        Kind::TimesOfDay => "time, as `\"06:00\"`, or list of times".to_owned(),
        Kind::Program => "argv, its program by its absolute path".to_owned(),
        Kind::Webhook => "address, as `\"https://host/path\"`".to_owned(),
        Kind::Secret => "credential, as `\"${credential:NAME}\"`".to_owned(),
        Kind::Mail => "mail address".to_owned(),
        Kind::Mails => "mail address, or list of mail addresses".to_owned(),
        Kind::Percent => "share".to_owned(),
        Kind::BoolOr(all) => format!("`true` | `false` | {}", words(all)),
        Kind::Degrees(most) => format!("number, {}", range((-most).to_string(), most.to_string())),
        Kind::List => "list".to_owned(),
        Kind::Dict => "table".to_owned(),
        Kind::Table(_) => "table of these keys".to_owned(),
        Kind::BoolOrTable(_) => "`true` | `false` | table of these keys".to_owned(),
        Kind::TableOrFalse(_) => "table of these keys | `false`".to_owned(),
        Kind::Steps => "list of tables of these keys".to_owned(),
    }
}

fn range(min: String, max: String) -> String {
    format!("{min} to {max}")
}

/// Milliseconds as they are written, in the largest unit that fits.
fn duration(ms: u64) -> String {
    largest(
        ms,
        &[(604_800_000, "w"), (86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")],
    )
}

/// Bytes, likewise.
fn size(bytes: u64) -> String {
    largest(bytes, &[(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"), (1, "")])
}

fn largest(n: u64, units: &[(u64, &str)]) -> String {
    let fits = units.iter().find(|(unit, _)| n > 0 && n.is_multiple_of(*unit));
    fits.map_or_else(|| "0".to_owned(), |(unit, name)| format!("{}{name}", n / unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::manual::roff::inline;
    use serde_json::Value;

    /// Keys of the schema, with their path, that the page does not tell.
    fn missing(schema: &Value, text: &str) -> Vec<String> {
        let mut missing = Vec::new();
        for (table, of) in schema["properties"].as_object().unwrap() {
            if table == "defaults" {
                continue;
            }
            let one = [&of["additionalProperties"], &of["items"], of]
                .into_iter()
                .find(|o| o["properties"].is_object())
                .unwrap_or_else(|| panic!("{table} has no keys"));
            let start = text
                .find(&format!("\n.SS \\fB[{table}"))
                .or_else(|| text.find(&format!("\n.SS \\fB[[{table}")));
            let Some(start) = start else {
                missing.push(table.clone());
                continue;
            };
            let body = &text[start + 1..];
            let end = body[1..].find("\n.S").map_or(body.len(), |n| n + 1);
            keys_of(one, "", &body[..end], &mut missing);
        }
        missing
    }

    fn keys_of(object: &Value, before: &str, text: &str, missing: &mut Vec<String>) {
        for (key, value) in object["properties"].as_object().into_iter().flatten() {
            let path = format!("{before}{key}");
            let (term, doc) =
                (inline(&format!("`{path}` =")), value["description"].as_str().unwrap_or_default());
            let doc = doc.trim_end_matches(&format!(" {NOT_YET}.")).to_owned();
            let told = text
                .lines()
                .zip(text.lines().skip(1))
                .any(|(t, d)| t.starts_with(&term) && d.starts_with(&inline(&doc)));
            let default = &value["default"];
            let with_default = default.is_null() || text.contains("Default: \\fB");
            if !told || !with_default {
                missing.push(path.clone());
            }
            keys_of(value, &format!("{path}."), text, missing);
            let long = &value["additionalProperties"]["anyOf"][1];
            keys_of(long, &format!("{path}.NAME."), text, missing);
        }
    }

    #[test]
    fn every_key_of_the_schema_is_in_the_page_under_its_table() {
        let text = page("");
        let mut schema = crate::config::schema();
        assert_eq!(missing(&schema, &text), Vec::<String>::new());
        let tables = schema["properties"].as_object_mut().unwrap();
        tables["results"]["properties"]["pool"] =
            serde_json::json!({"description": "The pool that drains it."});
        tables["tasks"]["additionalProperties"]["properties"]["on_memory"]["properties"]["new"] =
            serde_json::json!({"description": "x"});
        tables.insert("brand".to_owned(), serde_json::json!({"properties": {"new": {}}}));
        let mut found = missing(&schema, &text);
        found.sort();
        assert_eq!(found, ["brand", "on_memory.new", "pool"]);
    }

    #[test]
    fn the_example_is_a_config_without_a_fault() {
        let env = crate::config::Env::made("web1", 1000, &[]);
        let loaded = crate::config::load_texts(&[("example.toml", EXAMPLE)], &env);
        assert_eq!(loaded.unwrap().settings.tasks.len(), 2);
    }

    #[test]
    fn bounds_are_written_as_in_the_file() {
        assert_eq!((duration(0), duration(1_000), duration(90_000)), ("0".into(), "1s".into(), "90s".into()));
        assert_eq!(
            (duration(604_800_000 * 520), size(2 << 20), size(1536 << 10)),
            ("520w".into(), "2M".into(), "1536K".into())
        );
    }
}
