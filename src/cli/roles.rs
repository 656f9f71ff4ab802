//! The hidden roles that the launcher starts this program in: `@daemon` and `@runner`.

use std::process::ExitCode;

use super::output::{self, Failure};

/// Runs a role.
#[must_use]
pub fn run(role: &str) -> ExitCode {
    output::report(&Failure::internal(format!("the role @{role} is not wired")), false)
}
