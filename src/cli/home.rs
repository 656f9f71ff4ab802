//! `--user`: whose taskd a command means, what is made for a user's own, and who meant which.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

use super::output::Failure;
use crate::config::settings::Settings;
use crate::config::{DEFAULT_SOCKET, Home, Report, Source};

/// The home that `--user` means, or the system's.
///
/// # Errors
/// There is no home for this user.
pub fn of(user: bool) -> Result<Home, Failure> {
    if user { Home::mine().map_err(Failure::usage) } else { Ok(Home::system()) }
}

/// Makes what a user's own taskd needs and nobody else makes: the directories above its state, and that of its
/// socket, closed to others. What is there is left as it is.
///
/// # Errors
/// A sentence that names what cannot be made.
pub fn make(source: &Source, settings: &Settings) -> Result<(), String> {
    if !source.home.is_user() {
        return Ok(());
    }
    // What a file or a flag names is made as it is for the system's taskd: one directory and no more.
    let of_state = Some(settings.taskd.state_dir.as_path()).filter(|dir| *dir == source.home.state_dir());
    let of_socket = Some(settings.taskd.socket.as_path()).filter(|path| Ok(*path) == source.home.socket());
    if let Some(parent) = of_state.and_then(Path::parent) {
        private(parent, true)?;
    }
    if let Some(parent) = of_socket.and_then(Path::parent) {
        // Whoever opened the session makes what is above it, and takes it away at the end.
        private(parent, false)?;
    }
    Ok(())
}

fn private(path: &Path, parents: bool) -> Result<(), String> {
    let made = DirBuilder::new().mode(0o700).recursive(parents).create(path);
    match made {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(format!("cannot make the directory {}: {e}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Why an ordinary user who typed `taskd run` without `--user`, and named no config, meant something else:
/// what the system's taskd works with is not theirs.
pub fn refusal(source: &Source, loaded: Result<&Settings, &Report>) -> Option<Failure> {
    if geteuid().is_root() || source.home.is_user() || source.named {
        return None;
    }
    let why = match loaded {
        Err(report) if report.is_unreadable() => {
            format!("the config {} is not for you to read", source.file.display())
        }
        Err(_) => return None,
        Ok(settings) => foreign(&settings.taskd.state_dir)?,
    };
    let mut failure = Failure::config(format!("this would be the system's taskd, and {why}"));
    if let Ok(home) = Home::mine() {
        failure = failure.hint(format!(
            "`taskd --user run` is your own, with {} and {}; --config, --state-dir and --socket name other places",
            home.config().display(),
            home.state_dir().display()
        ));
    }
    Some(failure)
}

/// Why this user cannot have its state here.
fn foreign(dir: &Path) -> Option<String> {
    let shown = dir.display();
    match std::fs::metadata(dir) {
        Ok(found) if found.uid() == geteuid().as_raw() => None,
        Ok(_) => Some(format!("its state directory {shown} is not yours")),
        Err(_) => {
            let parent = dir.parent()?;
            access(parent, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
            Some(format!("its state directory {shown} is not for you to make"))
        }
    }
}

/// The taskd that was not asked.
#[derive(Clone, Debug)]
pub(super) struct Elsewhere {
    socket: Option<PathBuf>,
    /// It is a user's own.
    user: bool,
}

impl Elsewhere {
    /// The other one than that of this home.
    pub(super) fn than(home: &Home) -> Self {
        if home.is_user() {
            return Self { socket: Some(DEFAULT_SOCKET.into()), user: false };
        }
        let socket = Home::mine().ok().and_then(|own| own.socket().ok().map(Path::to_owned));
        Self { socket, user: true }
    }

    /// What to say where the one that was asked is not there.
    pub(super) fn hint(&self) -> Option<String> {
        let answers = self.socket.as_ref().is_some_and(|socket| UnixStream::connect(socket).is_ok());
        Some(match (self.user, answers) {
            (true, true) => "your own taskd runs: ask it with `taskd --user …`".to_owned(),
            (false, true) => "the system's taskd runs: ask it without --user".to_owned(),
            (false, false) => {
                "start your own with `systemctl --user start taskd` or `taskd --user run`; --socket or \
                 $TASKD_SOCKET names another socket"
                    .to_owned()
            }
            (true, false) => return None,
        })
    }
}
