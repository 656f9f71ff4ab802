//! Finding and reading the files: `/etc/taskd.toml` (with `--user` `~/.config/taskd.toml`), then the `*.toml`
//! of `/etc/taskd.d` in name order.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::env::Env;
use super::home::Home;
use super::ownership::ownership_fault;
use super::report::{Fault, FaultKind, File, Place};

/// Where the config is when nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/taskd.toml";

/// No config is larger, in bytes: what is, was named by mistake.
const MAX_BYTES: u64 = 4 << 20;

/// What to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file; its neighbor directory with `.d` instead of `.toml` is read after it.
    pub file: PathBuf,
    /// Whether somebody named it: then it must be there.
    pub named: bool,
    /// `--state-dir`: goes before what the files say.
    pub state_dir: Option<PathBuf>,
    /// `--socket`: likewise.
    pub socket: Option<PathBuf>,
    /// Where everything is that nobody names.
    pub home: Home,
    /// Whether taskd is to be run with it, which needs a place for the socket.
    pub serves: bool,
}

impl Source {
    /// The file that `--config` or `$TASKD_CONFIG` names, else that of this home.
    #[must_use]
    pub fn find(named: Option<PathBuf>, home: &Home) -> Self {
        let is_named = named.is_some();
        let file = named.unwrap_or_else(|| home.config().to_owned());
        Self { file, named: is_named, state_dir: None, socket: None, home: home.clone(), serves: false }
    }

    /// The same with values of the command line; relative paths are taken from the current directory.
    #[must_use]
    pub fn with_flags(mut self, state_dir: Option<PathBuf>, socket: Option<PathBuf>) -> Self {
        let absolute = |p: PathBuf| std::path::absolute(&p).unwrap_or(p);
        self.state_dir = state_dir.map(absolute);
        self.socket = socket.map(absolute);
        self
    }

    /// The same to run taskd with.
    #[must_use]
    pub fn to_serve(mut self) -> Self {
        self.serves = true;
        self
    }

    /// The directory of drop-ins: `/etc/taskd.d` for `/etc/taskd.toml`.
    #[must_use]
    pub fn drop_ins(&self) -> PathBuf {
        if self.file.extension() == Some(OsStr::new("toml")) {
            return self.file.with_extension("d");
        }
        let mut name = self.file.clone().into_os_string();
        name.push(".d");
        PathBuf::from(name)
    }

    /// Reads every file there is.
    pub(super) fn read(&self, env: &Env, faults: &mut Vec<Fault>, notes: &mut Vec<String>) -> Vec<File> {
        let mut paths = Vec::new();
        if self.named || self.file.exists() {
            paths.push(self.file.clone());
        } else {
            notes.push(format!("there is no {}: every setting has its default", self.file.display()));
        }
        let directory = self.drop_ins();
        match list(&directory) {
            Ok(more) => paths.extend(more),
            Err(e) => faults.push(about(
                FaultKind::Unreadable,
                &directory,
                format!("cannot list {}: {e}", directory.display()),
            )),
        }
        let mut files = Vec::new();
        for path in paths {
            match read(&path, env) {
                Ok(text) => files.push(File::new(path.display().to_string(), text)),
                Err(fault) => faults.push(*fault),
            }
        }
        files
    }
}

fn about(kind: FaultKind, path: &Path, message: String) -> Fault {
    Fault::somewhere(kind, Place::File(path.display().to_string()), "", message)
}

/// `*.toml` in name order; hidden files are left alone, a directory that is not there is empty.
fn list(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if path.extension() == Some(OsStr::new("toml")) && !hidden {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path, env: &Env) -> Result<String, Box<Fault>> {
    let name = path.display();
    let fault = |message: String| Box::new(about(FaultKind::File, path, message));
    let unreadable =
        |e: std::io::Error| Box::new(about(FaultKind::Unreadable, path, format!("cannot read {name}: {e}")));
    if env.check_ownership
        && let Some(why) = ownership_fault(path)
    {
        let help =
            "taskd runs as root and would obey whoever can write it: chown root and chmod go-w what is named";
        return Err(Box::new(about(FaultKind::File, path, format!("refusing {name}: {why}")).help(help)));
    }
    // Only what the check above saw is read: nobody but root can change where the path leads.
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(unreadable(std::io::Error::other("it is no regular file")));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(fault(format!("cannot use {name}: it is larger than {} MiB", MAX_BYTES >> 20)));
    }
    String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = e.as_bytes().iter().take(good).filter(|b| **b == b'\n').count() + 1;
        fault(format!("cannot use {name}: line {line} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_absolute() {
        let source =
            Source::find(None, &Home::system()).with_flags(Some("state".into()), Some("./run/s".into()));
        let here = std::env::current_dir().unwrap();
        assert_eq!(source.socket, Some(here.join("run/s")));
        assert_eq!(source.state_dir, Some(here.join("state")));
    }

    #[test]
    fn drop_ins_are_named_like_the_file() {
        for (file, directory) in [
            ("/etc/taskd.toml", "/etc/taskd.d"),
            ("/srv/my.conf.toml", "/srv/my.conf.d"),
            ("/srv/config", "/srv/config.d"),
        ] {
            assert_eq!(Source::find(Some(file.into()), &Home::system()).drop_ins(), PathBuf::from(directory));
        }
        assert_eq!(Source::find(None, &Home::system()).file, PathBuf::from(DEFAULT_FILE));
    }
}
