//! Whose taskd this is: the system's, or a user's own (`--user`), and where its files are unless somebody
//! says otherwise.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use super::source::DEFAULT_FILE;

/// The state directory of the system's taskd.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/taskd";

/// The control socket of the system's taskd.
pub const DEFAULT_SOCKET: &str = "/run/taskd/taskd.sock";

/// The places of a taskd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    user: bool,
    config: PathBuf,
    state_dir: PathBuf,
    socket: Result<PathBuf, String>,
}

impl Home {
    /// The system's: `/etc`, `/var/lib`, `/run`.
    #[must_use]
    pub fn system() -> Self {
        Self {
            user: false,
            config: DEFAULT_FILE.into(),
            state_dir: DEFAULT_STATE_DIR.into(),
            socket: Ok(DEFAULT_SOCKET.into()),
        }
    }

    /// That of whoever runs this process, by its environment.
    ///
    /// # Errors
    /// It is root, whose taskd is the system's; or nobody knows a home directory.
    pub fn mine() -> Result<Self, String> {
        let uid = geteuid();
        if uid.is_root() {
            return Err("--user is for a taskd that an ordinary user runs; root's is the system's".to_owned());
        }
        let passwd = || User::from_uid(uid).ok().flatten().map(|user| user.dir);
        Self::of_user(uid.as_raw(), |name| std::env::var_os(name), passwd)
    }

    /// That of a user with this environment and, where it names none, this home directory: the places of the
    /// XDG Base Directory Specification, in which a path that is not absolute counts as none.
    ///
    /// # Errors
    /// There is no home directory.
    pub fn of_user(
        uid: u32,
        variable: impl Fn(&str) -> Option<OsString>,
        passwd: impl FnOnce() -> Option<PathBuf>,
    ) -> Result<Self, String> {
        let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let (config, state) = (path("XDG_CONFIG_HOME"), path("XDG_STATE_HOME"));
        let (config, state) = match (config, state) {
            (Some(config), Some(state)) => (config, state),
            (config, state) => {
                let home = path("HOME").or_else(passwd).filter(|home| home.is_absolute());
                let home = home.ok_or("--user needs a home directory: set HOME")?;
                let below = |path: Option<PathBuf>, name| path.unwrap_or_else(|| home.join(name));
                (below(config, ".config"), below(state, ".local/state"))
            }
        };
        let socket = path("XDG_RUNTIME_DIR").map(|dir| dir.join("taskd/taskd.sock")).ok_or_else(|| {
            format!(
                "XDG_RUNTIME_DIR is not set, so there is no place for the socket of --user: log in anew, or \
                 run `loginctl enable-linger` once and `export XDG_RUNTIME_DIR=/run/user/{uid}`, or name a \
                 socket with --socket or $TASKD_SOCKET"
            )
        });
        Ok(Self { user: true, config: config.join("taskd.toml"), state_dir: state.join("taskd"), socket })
    }

    /// Whether it is a user's own.
    #[must_use]
    pub const fn is_user(&self) -> bool {
        self.user
    }

    /// The config file; it need not be there.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The control socket.
    ///
    /// # Errors
    /// There is no place for one: a sentence that says what to set.
    pub fn socket(&self) -> Result<&Path, &str> {
        self.socket.as_deref().map_err(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Home, String> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        Home::of_user(1000, find, || None)
    }

    #[test]
    fn the_places_are_those_of_the_xdg_specification() {
        let home = with(&[("HOME", "/home/ada"), ("XDG_RUNTIME_DIR", "/run/user/1000")]).unwrap();
        assert_eq!(home.config(), Path::new("/home/ada/.config/taskd.toml"));
        assert_eq!(home.state_dir(), Path::new("/home/ada/.local/state/taskd"));
        assert_eq!(home.socket().unwrap(), Path::new("/run/user/1000/taskd/taskd.sock"));
        let all = [("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/r")];
        let home = with(&all).unwrap();
        assert_eq!((home.config(), home.state_dir()), (Path::new("/c/taskd.toml"), Path::new("/s/taskd")));
        // A relative path counts as none.
        let home = with(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "c"), ("XDG_RUNTIME_DIR", "")]).unwrap();
        assert_eq!(home.config(), Path::new("/h/.config/taskd.toml"));
        let why = home.socket().unwrap_err();
        for word in ["XDG_RUNTIME_DIR", "enable-linger", "--socket", "/run/user/1000"] {
            assert!(why.contains(word), "{word} in {why}");
        }
        assert!(with(&[]).unwrap_err().contains("HOME"));
        assert!(with(&[("HOME", "ada")]).is_err());
    }
}
