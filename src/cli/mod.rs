//! The commands, one file each; the only place where errors are worded for people.

use std::process::ExitCode;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
