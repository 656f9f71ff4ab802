//! Where the config may speak of credentials, and whether they can be had.

use super::check::Check;
use super::credential::{self, Piece};
use super::credential_source::{CredentialSource, DIRECTORY};
use super::keys::Kind;
use super::report::{Fault, FaultKind};
use super::tree::{At, Node, Value, quote};

/// What becomes of a credential.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A file, byte for byte.
    File,
    /// A part of a text.
    Text,
}

impl Check<'_> {
    /// Looks at every `${credential:NAME}` of a value, and at the names of `credentials`.
    pub(super) fn credentials_of(&mut self, kind: Kind, key: &'static str, path: &str, node: &Node) {
        match (kind, &node.value) {
            (Kind::Environment, Value::Table(table)) => {
                for entry in &table.entries {
                    let path = format!("{path}.{}", super::tree::quote_key(&entry.key));
                    self.texts_of(&path, &entry.node);
                }
            }
            (Kind::Address(..) | Kind::Webhook | Kind::Secret, _) => self.texts_of(path, node),
            (Kind::TableOrFalse(keys), Value::Table(table)) => {
                for entry in &table.entries {
                    let path = format!("{path}.{}", super::tree::quote_key(&entry.key));
                    if let Some(key) = keys.iter().find(|k| k.name == entry.key) {
                        self.credentials_of(key.kind, key.name, &path, &entry.node);
                    }
                }
            }
            (Kind::Credentials, Value::Array(items)) => {
                for item in items {
                    // A bad name is told where the value is parsed.
                    if let Value::Text(name) = &item.value
                        && credential::check_name(name).is_ok()
                    {
                        self.credential(name, &item.at, path, Use::File);
                    }
                }
            }
            _ => self.misplaced(key, path, node),
        }
    }

    /// The references in a text that may have some.
    fn texts_of(&mut self, path: &str, node: &Node) {
        let Value::Text(text) = &node.value else { return };
        match credential::pieces(text) {
            Err(bad) => {
                let message = format!("{} {}", quote(&bad.written), bad.why);
                self.bad(&node.at, path, message, "write $${credential: for that text itself");
            }
            Ok(pieces) => {
                for piece in pieces {
                    if let Piece::Credential(name) = piece {
                        self.credential(name, &node.at, path, Use::Text);
                    }
                }
            }
        }
    }

    /// Refuses every reference in a value that may have none.
    fn misplaced(&mut self, key: &'static str, path: &str, node: &Node) {
        match &node.value {
            Value::Text(text) if credential::is_in(text) => {
                let name = credential::names(text).first().map_or("NAME", |name| *name);
                let why = match key {
                    "command" | "exec" | "worker" => {
                        "what stands in a command line can be read by every user"
                    }
                    _ => "its value is shown in logs and answers",
                };
                let message = format!("`{key}` cannot hold a credential: {why}");
                let help = format!(
                    "write credentials = [{}] and read the file $CREDENTIALS_DIRECTORY/{name}, or put \
                     ${{credential:{name}}} into a value of `environment`",
                    quote(name)
                );
                self.fault(Fault::new(FaultKind::Reference, &node.at, path, message).help(help));
            }
            Value::Array(items) => items.iter().for_each(|item| self.misplaced(key, path, item)),
            Value::Table(table) => table.entries.iter().for_each(|e| self.misplaced(key, path, &e.node)),
            _ => {}
        }
    }

    /// Whether this credential can be had, as far as that can be seen from here.
    fn credential(&mut self, name: &str, at: &At, path: &str, used: Use) {
        let source = &self.env.credentials;
        if *source == CredentialSource::None && !self.env.starts {
            self.unseen.insert(name.to_owned());
            return;
        }
        let told = match source.read(name) {
            Err(why) => why,
            Ok(secret) => match secret.text() {
                Err(why) if used == Use::Text => {
                    let help = format!(
                        "give it to the task as a file: credentials = [{}]; or encode it as text",
                        quote(name)
                    );
                    let message = format!("the credential `{name}` cannot stand in a text: {why}");
                    return self.fault(Fault::new(FaultKind::Reference, at, path, message).help(help));
                }
                _ => return,
            },
        };
        let help = format!(
            "add LoadCredential={name}:/path/of/the/file to the unit (systemctl edit taskd), which sets ${DIRECTORY}, \
             and restart it"
        );
        self.fault(Fault::new(FaultKind::Reference, at, path, told).help(help));
    }

    /// What could not be looked at, as a note.
    pub(super) fn unseen_note(&self) -> Option<String> {
        let names: Vec<String> = self.unseen.iter().map(|n| format!("`{n}`")).collect();
        let (what, their) = match names.as_slice() {
            [] => return None,
            [_] => ("the credential", "its value"),
            _ => ("the credentials", "their values"),
        };
        Some(format!(
            "{what} {}: {their} could not be looked at, since this was not started by systemd (${DIRECTORY} is not \
             set); the start of taskd does",
            names.join(", ")
        ))
    }
}
