//! Where credentials come from: the directory that systemd names in `$CREDENTIALS_DIRECTORY`.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::secret::{Secret, Secrets};

/// The variable in which systemd names the directory.
pub const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Largest credential, in bytes: systemd's own bound.
pub const MAX_SIZE: u64 = 1 << 20;

/// Most bytes of all credentials that one taskd uses: they are held in memory and handed on whole.
pub const MAX_TOTAL: usize = 16 << 20;

/// Where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// Nowhere: the variable is not set, so nothing was given by systemd.
    None,
    /// The variable is set and names no directory: why.
    Unusable(&'static str),
    /// In this directory.
    Directory(PathBuf),
}

impl CredentialSource {
    /// As the environment of this process says.
    #[must_use]
    pub fn of_this_process() -> Self {
        match std::env::var_os(DIRECTORY) {
            None => Self::None,
            Some(path) if path.is_empty() => Self::Unusable("it is empty"),
            Some(path) if !Path::new(&path).is_absolute() => Self::Unusable("it is no absolute path"),
            Some(path) => Self::Directory(path.into()),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, a sentence with the name.
    pub fn read(&self, name: &str) -> Result<Secret, String> {
        let directory = match self {
            Self::None => {
                return Err(format!(
                    "the credential `{name}` cannot be had: taskd was given none (${DIRECTORY} is not set)"
                ));
            }
            Self::Unusable(why) => {
                return Err(format!("the credential `{name}` cannot be had: of ${DIRECTORY}, {why}"));
            }
            Self::Directory(directory) => directory,
        };
        let shown = directory.display();
        // Not to wait for a writer where it is a pipe.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(directory.join(name));
        let file = opened.map_err(|e| match e.kind() {
            ErrorKind::NotFound => format!("there is no credential `{name}` in {shown}"),
            _ => format!("the credential `{name}` in {shown} cannot be read: {e}"),
        })?;
        let cannot = |e| format!("the credential `{name}` in {shown} cannot be read: {e}");
        if !file.metadata().map_err(cannot)?.is_file() {
            return Err(format!("the credential `{name}` in {shown} is no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(cannot)?;
        let secret = Secret::new(bytes);
        if secret.expose().len() as u64 > MAX_SIZE {
            return Err(format!("the credential `{name}` in {shown} is larger than {} MiB", MAX_SIZE >> 20));
        }
        Ok(secret)
    }

    /// Reads all of these.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be had, or that all together are too large.
    pub fn read_all(&self, names: &BTreeSet<&str>) -> Result<Secrets, String> {
        let mut secrets = Secrets::default();
        let mut total = 0;
        for name in names {
            let secret = self.read(name)?;
            total += secret.expose().len();
            secrets.insert(name, secret);
        }
        if total > MAX_TOTAL {
            return Err(format!("the credentials are larger than {} MiB together", MAX_TOTAL >> 20));
        }
        Ok(secrets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_whole_and_what_cannot_be_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let source = CredentialSource::Directory(dir.path().to_owned());
        let write =
            |name: &str, size: usize| std::fs::write(dir.path().join(name), vec![b'x'; size]).unwrap();
        write("full", 1 << 20);
        write("above", (1 << 20) + 1);
        write("empty", 0);
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(source.read("full").unwrap().expose().len(), 1 << 20);
        assert_eq!(source.read("empty").unwrap().expose(), b"");
        for (name, why) in [
            ("above", "larger than 1 MiB"),
            ("gone", "no credential `gone`"),
            ("dir", "regular"),
            ("pipe", "regular"),
        ] {
            let told = source.read(name).unwrap_err();
            assert!(told.contains(why) && told.contains(name), "{told}");
        }
        let all = source.read_all(&["full", "empty"].into()).unwrap();
        assert_eq!(format!("{all:?}"), "{\"empty\", \"full\"}");
        assert!(source.read_all(&["full", "gone"].into()).unwrap_err().contains("gone"));
    }

    #[test]
    fn without_a_directory_the_variable_is_named() {
        assert!(CredentialSource::None.read("a").unwrap_err().contains("$CREDENTIALS_DIRECTORY is not set"));
        assert!(CredentialSource::Unusable("it is empty").read("a").unwrap_err().contains("it is empty"));
    }

    #[test]
    fn all_together_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..17).map(|n| format!("c{n}")).collect();
        for name in &names {
            std::fs::write(dir.path().join(name), vec![0; 1 << 20]).unwrap();
        }
        let source = CredentialSource::Directory(dir.path().to_owned());
        let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        assert!(source.read_all(&wanted).unwrap_err().contains("16 MiB"));
    }
}
