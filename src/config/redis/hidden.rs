//! Texts that nobody may see: passwords, with `${credential:NAME}` in them.

use std::fmt;

use crate::config::credential::{self, Piece};
use crate::config::secret::Secrets;

/// A password as it stands in an address, percent-encoding taken off. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Vec<Part>);

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Credential(String),
}

/// Stands for a reference while an address is taken apart: a character that no address holds.
pub(super) const MARK: char = '\u{E000}';

/// An address whose references are [`MARK`]s, and their names in order.
pub(super) struct Marked {
    pub(super) text: String,
    pub(super) names: Vec<String>,
}

impl Marked {
    /// Takes the references out of a text.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        let pieces = credential::pieces(text).map_err(|bad| format!("{} {}", bad.written, bad.why))?;
        let mut marked = Self { text: String::new(), names: Vec::new() };
        for piece in pieces {
            match piece {
                Piece::Text(text) => marked.text.push_str(text),
                Piece::Credential(name) => {
                    marked.text.push(MARK);
                    marked.names.push(name.to_owned());
                }
            }
        }
        Ok(marked)
    }
}

impl Hidden {
    /// A part of a marked address. `before`: how many references stand before it.
    pub(super) fn of(encoded: &str, names: &[String], before: usize) -> Option<Self> {
        let mut parts = Vec::new();
        let mut names = names.iter().skip(before);
        for (n, text) in encoded.split(MARK).enumerate() {
            if n > 0 {
                parts.push(Part::Credential(names.next()?.clone()));
            }
            let text = decoded(text)?;
            if !text.is_empty() {
                parts.push(Part::Text(text));
            }
        }
        Some(Self(parts))
    }

    /// One that is known whole.
    #[must_use]
    pub fn known(text: &str) -> Self {
        Self(vec![Part::Text(text.to_owned())])
    }

    /// The names of the credentials in it.
    pub fn credentials(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Credential(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The password itself.
    ///
    /// # Errors
    /// The credential that is not there or cannot stand in a text; a sentence without any value.
    pub fn expose(&self, secrets: &Secrets) -> Result<String, String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Credential(name) => {
                    out.push_str(&credential::expand(&format!("${{credential:{name}}}"), secrets)?);
                }
            }
        }
        Ok(out)
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

/// What may be shown of a part that holds a secret: references as they are written, else three stars.
pub(super) fn shown(encoded: &str, names: &[String], before: usize) -> String {
    if encoded.is_empty() || encoded.chars().any(|c| c != MARK) {
        return "***".to_owned();
    }
    let names = names.iter().skip(before).take(encoded.chars().count());
    names.map(|name| format!("${{credential:{name}}}")).collect()
}

/// A text without its percent-encoding (RFC 3986, section 2.1); absent where it is no UTF-8 or `%` begins nothing.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}
