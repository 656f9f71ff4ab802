//! `taskd openapi`: the control API as a document.

use crate::control::openapi::document;

use super::Context;
use super::output::{self, Ending, Failure};

/// Options of `taskd openapi`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd openapi > taskd.openapi.json
  curl --unix-socket /run/taskd/taskd.sock http://taskd/v1/status

EXIT CODES
  0    printed")]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// stdout cannot be written.
pub fn run(_args: &Args, context: &Context) -> Ending {
    let document = document();
    let text =
        if context.json { serde_json::to_string(&document) } else { serde_json::to_string_pretty(&document) };
    output::json(text.map_err(|e| Failure::internal(e.to_string()))?.as_bytes())?;
    Ok(0)
}
