//! What a command line is about, in a word: the program or script that does the work.

use super::shell::{Piece, pieces};

/// Programs that only run another one, and how many words of their own follow their options.
const WRAPPERS: &[(&str, usize)] = &[
    ("sudo", 0),
    ("doas", 0),
    ("nice", 0),
    ("ionice", 0),
    ("nohup", 0),
    ("setsid", 0),
    ("exec", 0),
    ("time", 0),
    ("env", 0),
    ("command", 0),
    ("chronic", 0),
    ("cronic", 0),
    ("systemd-cat", 0),
    ("stdbuf", 0),
    ("chrt", 1),
    ("timeout", 1),
    ("flock", 1),
    ("setlock", 1),
    ("lckdo", 1),
    ("run-one", 0),
    ("xvfb-run", 0),
    ("then", 0),
    ("do", 0),
    ("else", 0),
    ("{", 0),
    ("!", 0),
];

/// Options of wrappers whose value is the next word.
const WITH_VALUE: &[&str] = &[
    "-u",
    "-g",
    "-n",
    "-c",
    "-k",
    "-s",
    "-w",
    "-E",
    "-t",
    "-o",
    "-e",
    "-p",
    "--user",
    "--signal",
    "--kill-after",
];

/// Programs that run a script, a module or a subcommand.
const INTERPRETERS: &[&str] = &[
    "sh",
    "bash",
    "dash",
    "zsh",
    "ksh",
    "python",
    "python2",
    "python3",
    "perl",
    "php",
    "ruby",
    "node",
    "java",
    "Rscript",
    "php-cli",
    "uv",
    "poetry",
    "pipenv",
    "bundle",
    "rake",
    "npx",
    "npm",
    "docker",
    "docker-compose",
    "podman",
    "run-parts",
    "make",
    "su",
    "systemctl",
    "service",
];

/// Programs whose `exec` runs a command in a container.
const CONTAINERS: &[&str] = &["docker", "docker-compose", "podman"];

/// Scripts that take a subcommand, which says more than they do.
const DISPATCHERS: &[&str] =
    &["manage.py", "artisan", "console", "wp", "drush", "occ", "odoo-bin", "wp-cli.phar", "rails", "celery"];

/// Words of a command that say nothing of what it does.
const NOISE: &[&str] = &[
    "cd", "test", "[", "[[", "echo", "export", "sleep", ".", "source", "set", "umask", "true", "if", "mkdir",
    "command", "ulimit",
];

/// A word for the command, without its extension; `task` where there is none.
#[must_use]
pub fn of(command: &str) -> String {
    let Some(all) = pieces(command) else {
        return stem(command.split_whitespace().next().unwrap_or("task"));
    };
    let mut fallback = None;
    for part in all.split(Piece::separates) {
        let words: Vec<&str> = words_of(part);
        let Some(name) = of_simple(&words) else { continue };
        if NOISE.contains(&name.as_str()) || INTERPRETERS.contains(&name.as_str()) {
            fallback.get_or_insert(name);
        } else {
            return name;
        }
    }
    fallback.unwrap_or_else(|| "task".to_owned())
}

/// The words of a simple command, without what is redirected where.
fn words_of(part: &[Piece]) -> Vec<&str> {
    let mut out = Vec::new();
    let mut redirected = false;
    for piece in part {
        if piece.operator {
            redirected = piece.raw.ends_with(['<', '>', '&', '|']);
        } else if redirected {
            redirected = false;
        } else {
            out.push(piece.text());
        }
    }
    out
}

fn of_simple(words: &[&str]) -> Option<String> {
    let mut rest = words.iter().copied().peekable();
    loop {
        let word = rest.next()?;
        if is_assignment(word) {
            continue;
        }
        let program = base(word);
        if let Some((name, own)) = WRAPPERS.iter().find(|(name, _)| *name == program) {
            // `command -v x` asks whether there is a program.
            if *name == "command" && rest.peek().is_some_and(|w| w.starts_with('-')) {
                return Some("command".to_owned());
            }
            skip_options(program, &mut rest);
            for _ in 0..*own {
                rest.next();
            }
            // `flock /lock -c 'command'`
            if rest.peek() == Some(&"-c") {
                rest.next();
                return rest.next().map(of);
            }
            continue;
        }
        if NOISE.contains(&program) {
            return Some(program.to_owned());
        }
        if CONTAINERS.contains(&program) && rest.peek().is_some_and(|w| matches!(*w, "exec" | "compose")) {
            let mut inside: Vec<&str> = rest.collect();
            let at = inside.iter().position(|w| *w == "exec")?;
            let mut inner = inside.split_off(at + 1).into_iter().peekable();
            skip_options(program, &mut inner);
            let container = inner.next()?;
            return of_simple(&inner.collect::<Vec<_>>()).or_else(|| Some(stem(container)));
        }
        if INTERPRETERS.contains(&program) || program.starts_with("python") || program.starts_with("php") {
            return Some(interpreted(program, &rest.collect::<Vec<_>>()));
        }
        if DISPATCHERS.contains(&program) {
            return Some(dispatched(program, &rest.collect::<Vec<_>>()));
        }
        return Some(stem(word));
    }
}

fn skip_options<'a>(program: &str, rest: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) {
    while let Some(option) = rest.next_if(|w| w.starts_with('-') && w.len() > 1 && *w != "-c") {
        // flock's -n and docker's -t are words alone.
        let alone = match program {
            "flock" => option == "-n",
            _ => CONTAINERS.contains(&program) && option == "-t",
        };
        if WITH_VALUE.contains(&option) && !alone {
            rest.next();
        }
    }
}

/// What an interpreter runs: its module, its script, or the words after it.
fn interpreted(program: &str, rest: &[&str]) -> String {
    let mut rest = rest.iter().copied();
    while let Some(word) = rest.next() {
        match word {
            "-m" => return rest.next().map_or_else(|| program.to_owned(), stem),
            // A program as text: what it is called says nothing, but that of a shell may.
            "-c" | "-e" | "-r" | "-lc" | "-ic" => {
                let shell = matches!(program, "sh" | "bash" | "dash" | "zsh" | "ksh" | "su");
                return rest.next().filter(|_| shell).map_or_else(|| program.to_owned(), of);
            }
            "-jar" => return rest.next().map_or_else(|| program.to_owned(), stem),
            "run" | "exec" | "compose" | "-" | "start" | "restart" | "reload" | "run-script" => {}
            _ if word.starts_with('-') => {
                if matches!(word, "-d" | "-f" | "-u" | "-C") && program != "php" {
                    rest.next();
                }
            }
            _ if is_assignment(word) => {}
            _ => {
                let script = base(word);
                if DISPATCHERS.contains(&script) {
                    return dispatched(script, &rest.collect::<Vec<_>>());
                }
                return stem(word);
            }
        }
    }
    stem(program)
}

fn dispatched(program: &str, rest: &[&str]) -> String {
    let named = rest.iter().find(|w| !w.starts_with('-') && !w.contains('/') && !is_assignment(w));
    named.map_or_else(|| stem(program), |w| stem(w))
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

fn base(word: &str) -> &str {
    word.trim_end_matches('/').rsplit('/').next().unwrap_or(word)
}

/// The last part of a path without the extension of a script.
fn stem(word: &str) -> String {
    let name = base(word);
    let ends = [".sh", ".bash", ".py", ".pl", ".php", ".rb", ".js", ".jar", ".cgi", ".phar", ".bin", ".R"];
    let cut = ends.iter().find_map(|e| name.strip_suffix(e)).filter(|n| !n.is_empty());
    cut.unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_that_does_the_work() {
        for (command, name) in [
            ("/usr/local/bin/backup.sh --all > /dev/null 2>&1", "backup"),
            ("cd / && run-parts --report /etc/cron.hourly", "cron.hourly"),
            ("test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }", "cron.daily"),
            (
                "[ -x /usr/lib/php/sessionclean ] && if [ ! -d /run/systemd/system ]; then /usr/lib/php/sessionclean; fi",
                "sessionclean",
            ),
            ("command -v debian-sa1 > /dev/null && debian-sa1 1 1", "debian-sa1"),
            ("FOO=1 sudo -u www-data /usr/bin/php -f /srv/nextcloud/cron.php", "cron"),
            ("/srv/venv/bin/python3.11 -m shop.report --daily", "shop.report"),
            ("cd /srv/app && venv/bin/python manage.py clearsessions", "clearsessions"),
            ("flock -n /tmp/x.lock timeout -k 5 60 nice -n 10 /opt/sync.py", "sync"),
            ("flock /tmp/x -c 'cd /a && ./job.rb'", "job"),
            ("bash -c 'source ~/.profile; /opt/thing'", "thing"),
            ("docker exec -t -u postgres db pg_dump shop", "pg_dump"),
            ("docker compose exec -T web ./manage.py cleanup", "cleanup"),
            ("docker run --rm image/x", "x"),
            ("test -x /a && perl -e 'sleep 3' && renew", "renew"),
            ("sleep 5", "sleep"),
            ("'unclosed", "'unclosed"),
            ("", "task"),
            ("* * *", "*"),
        ] {
            assert_eq!(of(command), name, "{command}");
        }
    }
}
