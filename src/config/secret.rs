//! Secrets in memory: a type that no log, error or answer can show by accident.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The value of a credential, byte for byte. It has no `Display` and no `Serialize`, and its `Debug` shows
/// nothing; [`Secret::expose`] is the only way to its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Why a value cannot stand in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoText {
    /// It is no UTF-8.
    #[error("it is not UTF-8")]
    Encoding,
    /// It holds a NUL byte, which no program can be given.
    #[error("it holds a NUL byte")]
    Nul,
}

impl Secret {
    /// With these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Its bytes. To be called only where they are handed to who may have them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// As a part of a text: without one newline at its end, which most files have.
    ///
    /// # Errors
    /// See [`NoText`].
    pub fn text(&self) -> Result<&str, NoText> {
        let bytes = self.0.strip_suffix(b"\n").unwrap_or(&self.0);
        let text = std::str::from_utf8(bytes).map_err(|_| NoText::Encoding)?;
        if text.contains('\0') { Err(NoText::Nul) } else { Ok(text) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // As far as safe code can: what is freed is not to be found by who gets the memory next.
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

/// Secrets by the names of their credentials. `Debug` shows the names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    /// The secret of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    /// Adds one.
    pub fn insert(&mut self, name: &str, secret: Secret) {
        self.0.insert(name.to_owned(), secret);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, secret)| (name.as_str(), secret))
    }

    /// Copies of those with these names.
    #[must_use]
    pub fn only(&self, names: &BTreeSet<&str>) -> Self {
        let kept = self.0.iter().filter(|(name, _)| names.contains(name.as_str()));
        Self(kept.map(|(name, secret)| (name.clone(), secret.clone())).collect())
    }

    /// The names whose values differ between two reads, or that stand in one of them only.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.into_iter().filter(|n| self.0.get(*n) != other.0.get(*n)).cloned().collect()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_a_value() {
        let mut secrets = Secrets::default();
        secrets.insert("smtp", Secret::new(b"hunter2".to_vec()));
        assert_eq!(format!("{secrets:?} {:?}", secrets.get("smtp")), "{\"smtp\"} Some(Secret(…))");
    }

    #[test]
    fn one_newline_is_taken_off_a_text_and_no_other_byte() {
        let text = |bytes: &[u8]| Secret::new(bytes.to_vec()).text().map(str::to_owned);
        assert_eq!(text(b"a\n"), Ok("a".to_owned()));
        assert_eq!(text(b" a\n\n"), Ok(" a\n".to_owned()));
        assert_eq!(text(b"a\r\n"), Ok("a\r".to_owned()));
        assert_eq!(text(b"\n"), Ok(String::new()));
        assert_eq!(text(b"\xff"), Err(NoText::Encoding));
        assert_eq!(text(b"a\0b"), Err(NoText::Nul));
        assert_eq!(Secret::new(b"a\n".to_vec()).expose(), b"a\n");
    }

    #[test]
    fn what_differs_is_told_by_name() {
        let made = |all: &[(&str, &str)]| {
            let mut secrets = Secrets::default();
            for (name, value) in all {
                secrets.insert(name, Secret::new(value.as_bytes().to_vec()));
            }
            secrets
        };
        let (a, b) =
            (made(&[("a", "1"), ("b", "2"), ("c", "3")]), made(&[("a", "1"), ("b", "x"), ("d", "4")]));
        assert_eq!(a.differing(&b), ["b", "c", "d"]);
        assert_eq!(a.only(&["a", "z"].into()), made(&[("a", "1")]));
    }
}
