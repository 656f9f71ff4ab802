//! Whether the entries of a crontab name users, as those of /etc/crontab and /etc/cron.d do.

use super::line::{Line, parse, word};

/// Users that most systems have, or that packages bring along with their crontabs; none that is a program too.
const USUAL: &[&str] = &[
    "root",
    "www-data",
    "nobody",
    "postgres",
    "munin",
    "logcheck",
    "smmsp",
    "amavis",
    "nagios",
    "ubuntu",
    "debian",
    "vagrant",
    "ec2-user",
    "centos",
    "taskd-run",
    "debian-spamd",
    "vmail",
    "opendkim",
    "clamav",
];

/// How it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// There is one: the option says so.
    Asked,
    /// There is one: so is every file of that place.
    Place,
    /// There is one: the word after the time is a user in every entry.
    Seen,
    /// There is none.
    None,
}

impl Column {
    /// Decides by the file's name and its entries.
    #[must_use]
    pub fn of(path: &str, text: &str) -> Self {
        if path.ends_with("/etc/crontab") || path.contains("/etc/cron.d/") {
            return Self::Place;
        }
        let mut entries = 0_usize;
        for line in text.lines() {
            if let Line::Entry(_, rest) = parse(line) {
                let (user, command) = word(rest);
                if !USUAL.contains(&user) || !is_command(command) {
                    return Self::None;
                }
                entries += 1;
            }
        }
        if entries > 0 { Self::Seen } else { Self::None }
    }
}

/// The first line that seems to name a user after its time, and that user: one that most systems have, or that
/// `exists`.
#[must_use]
pub fn likely(text: &str, exists: &dyn Fn(&str) -> bool) -> Option<(usize, String)> {
    text.lines().zip(1..).find_map(|(line, no)| {
        let Line::Entry(_, rest) = parse(line) else { return None };
        let (user, command) = word(rest);
        let is_user = !user.contains('/') && (USUAL.contains(&user) || exists(user));
        (is_user && is_command(command)).then(|| (no, user.to_owned()))
    })
}

/// Whether this can be a command, and not what follows one.
fn is_command(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(['=', '|', '&', ';', '>', '<', '-', '%'])
}

/// The user whose crontab a file of cron's spool is.
#[must_use]
pub fn owner(path: &str) -> Option<&str> {
    let (directory, name) = path.rsplit_once('/')?;
    let spool = directory.ends_with("/cron/crontabs") || directory.ends_with("/spool/cron");
    (spool && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_or_every_entry_decides() {
        assert_eq!(Column::of("/etc/crontab", ""), Column::Place);
        assert_eq!(Column::of("/etc/cron.d/php", "0 0 * * * x"), Column::Place);
        assert_eq!(Column::of("x", "# c\nA=b\n0 0 * * * root /x\n@daily www-data y\n"), Column::Seen);
        assert_eq!(Column::of("x", "0 0 * * * root /x\n0 0 * * * /y z\n"), Column::None);
        assert_eq!(Column::of("x", "0 0 * * * backup\n"), Column::None);
        assert_eq!(Column::of("x", ""), Column::None);
        assert_eq!(owner("/var/spool/cron/crontabs/alice"), Some("alice"));
        assert_eq!(owner("/etc/crontab"), None);
    }
}
