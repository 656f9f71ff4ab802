//! `taskd cancel`: ends messages, whether they wait or run.

use std::time::Duration;

use crate::control::client::ClientError;
use crate::control::route::Method;

use super::output::{self, Ending, Failure};
use super::{Context, checked};

/// Options of `taskd cancel`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd cancel 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f
  taskd list --state waiting --task send_email --json | jq -r '.[].id' | xargs taskd cancel

The id may be that of a workflow: everything of it that is not over is ended, and nothing more begins.
A waiting message becomes REVOKED at once; a running one is ended with everything it started.
Every id is tried; the exit code is the highest of all.

EXIT CODES
  0    done
  64   an id cannot be one
  69   no such message; taskd is not running
  73   not possible in this state
  75   not now; try again
  77   not permitted: not one's own message, and no [access] admin")]
pub struct Args {
    /// The messages
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// taskd cannot be asked at all; what it says of single ids is reported and becomes the exit code.
pub fn run(args: &Args, context: &Context) -> Ending {
    context.block_on(each(&args.ids, context, "cancel"))
}

/// Does a verb to each of these messages; the highest exit code of all.
///
/// # Errors
/// taskd cannot be asked at all.
pub async fn each(ids: &[String], context: &Context, verb: &str) -> Ending {
    for id in ids {
        checked("id", id)?;
    }
    let mut client = context.client();
    let mut worst = 0;
    for id in ids {
        let path = format!("/v1/messages/{id}/{verb}");
        match client.text(Method::Post, &path, None, false, Duration::ZERO).await {
            Ok(answer) => context.show(&answer, super::done_text)?,
            Err(ClientError::Api(error)) if ids.len() > 1 => {
                let failure = Failure::from(error).context(id);
                // Its exit code is among those compared.
                let _ = output::report(&failure, context.json);
                worst = worst.max(failure.code());
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(worst)
}
