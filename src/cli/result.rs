//! `taskd result`: what became of a message.

use std::time::Duration;

use hyper::body::Bytes;
use serde_json::Value;

use crate::control::api::MessageView;
use crate::control::route::Method;

use super::output::{self, Ending, Failure};
use super::{Context, checked, ending, enqueue, follow, parse};

/// Options of `taskd result`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("\
EXAMPLES
  taskd result 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f
  taskd result 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f --wait --timeout 5m

The result of a workflow (by its id) is that of its last step, or the list of those of its last steps.
A result that is a string is printed as it is, another one as JSON; of what did not succeed, the error is
printed to stderr.

EXIT CODES
{}
  69       also: no such message; taskd is not running
  77       not permitted: not one's own message, and no [access] read", ending::CODES))]
pub struct Args {
    /// The message
    #[arg(value_name = "ID")]
    pub id: String,
    /// Wait until it is final
    #[arg(long)]
    pub wait: bool,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let id = checked("id", &args.id)?;
    context.block_on(async {
        let mut client = context.client();
        let (answer, view) = if args.wait {
            enqueue::within(context, id, follow::until_final(&mut client, id)).await?
        } else {
            let path = format!("/v1/messages/{id}/result");
            let answer = client.text(Method::Get, &path, None, true, Duration::ZERO).await?;
            let view = parse(&answer)?;
            (answer, view)
        };
        show(&answer, &view, context)?;
        Ok(ending::exit_code(&view))
    })
}

/// Prints what became of a message or a workflow.
///
/// # Errors
/// stdout cannot be written.
pub fn show(answer: &Bytes, view: &MessageView, context: &Context) -> Result<(), Failure> {
    if context.json {
        return output::json(answer);
    }
    if let Some(sentence) = ending::sentence(view) {
        output::note(sentence);
    }
    if !view.state.is_final() {
        return Ok(());
    }
    let Some(outcome) = &view.outcome else { return Ok(()) };
    if let Some(failure) = outcome.failure.as_ref().filter(|f| !f.traceback.is_empty()) {
        output::bytes(true, format!("{}\n", failure.traceback.trim_end()).as_bytes())?;
    }
    match &outcome.result {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => output::bytes(false, format!("{text}\n").as_bytes())?,
        Some(other) => output::json(other.to_string().as_bytes())?,
    }
    if outcome.truncated {
        output::note("the result was longer than max_size and is cut");
    }
    Ok(())
}
