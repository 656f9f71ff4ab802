//! Why there is no connection.

use super::fault::{Ask, Fault, Reason};

/// Why a server cannot be used: which one, why, and what to do. No password is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{server}: {fault}")]
pub struct LinkError {
    /// The address, without its passwords; behind sentinels with the server that they named.
    pub server: String,
    /// Why.
    pub fault: Fault,
}

impl LinkError {
    /// About a server.
    #[must_use]
    pub fn new(server: &str, fault: Fault) -> Self {
        Self { server: server.to_owned(), fault }
    }

    /// About a server, with a reason and what was said.
    #[must_use]
    pub fn because(server: &str, reason: Reason, said: impl Into<String>) -> Self {
        Self::new(server, Fault::new(reason, said))
    }

    /// What to do next. Whoever asks again, for whatever reason, does so as [`super::Backoff`] says.
    #[must_use]
    pub fn ask(&self) -> Ask {
        self.fault.ask()
    }

    /// What a person can do; empty where there is nothing but to wait.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.fault.reason.help()
    }
}
