//! The secrets that a process was given for what it starts, and the form in which they travel: inside a sealed
//! memory file, and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::config::{Secret, Secrets};

/// What a runner or a worker's first process holds for its tasks.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The values.
    pub secrets: Secrets,
    /// A directory of the process's user, in memory and closed to all others, where they become files; absent:
    /// nothing that it starts sees any as files.
    pub directory: Option<PathBuf>,
}

/// [`Held`] on its way: the one form of secrets that can be serialized. It is made by [`Held::seal`] alone.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Sealed {
    secrets: BTreeMap<String, String>,
    directory: Option<PathBuf>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("secrets", &self.secrets.keys())
            .field("directory", &self.directory)
            .finish()
    }
}

impl Held {
    /// For a sealed memory file.
    pub(super) fn seal(&self) -> Sealed {
        let secrets = self.secrets.iter();
        let secrets = secrets.map(|(name, secret)| (name.to_owned(), STANDARD.encode(secret.expose())));
        Sealed { secrets: secrets.collect(), directory: self.directory.clone() }
    }
}

impl Sealed {
    /// What was sealed.
    ///
    /// # Errors
    /// A sentence, where it is damaged.
    pub(super) fn open(self) -> Result<Held, String> {
        let mut secrets = Secrets::default();
        for (name, text) in self.secrets {
            let bytes = STANDARD.decode(text).map_err(|_| format!("the credential {name:?} is damaged"))?;
            secrets.insert(&name, Secret::new(bytes));
        }
        Ok(Held { secrets, directory: self.directory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_travels_and_none_is_shown() {
        let mut held = Held { directory: Some("/run/x".into()), ..Held::default() };
        let all: Vec<u8> = (0..=255).collect();
        held.secrets.insert("all", Secret::new(all.clone()));
        held.secrets.insert("text", Secret::new(b"hunter2".to_vec()));
        let sealed = held.seal();
        assert!(!format!("{held:?} {sealed:?}").contains(&STANDARD.encode("hunter2")));
        let text = serde_json::to_vec(&sealed).unwrap();
        let back = serde_json::from_slice::<Sealed>(&text).unwrap().open().unwrap();
        assert_eq!((back.secrets.get("all").unwrap().expose(), &back.directory), (&*all, &held.directory));
        assert!(serde_json::from_str::<Sealed>("{\"secrets\":{\"a\":\"?\"}}").unwrap().open().is_err());
    }
}
