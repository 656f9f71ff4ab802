//! `taskd notify`: tries whether people are told.

use clap::{Subcommand, ValueEnum};

use crate::control::api::{Enqueued, MessageView, NotifyBody};
use crate::control::route::Method;
use crate::model::notice;
use crate::model::state::State;

use super::output::{self, Ending, GREEN, RED, RESET};
use super::{Context, body_of, checked, ending, enqueue, follow, telling};

/// Exit code where somebody was not told.
const UNTOLD: u8 = 1;

/// Options of `taskd notify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd notify test clean_logs
  taskd notify schema
  taskd list --task taskd.notify

EXIT CODES
  0    done
  1    somebody was not told
  69   no such task; taskd is not running
  73   nobody is to be told
  75   not now; try again
  77   not permitted: needs [access] admin")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done about notices.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell everybody who is told of a task that this is a test, and wait until they are
    #[command(after_help = "\
EXAMPLES
  taskd notify test clean_logs
  taskd notify test clean_logs --kind recovery --timeout 1m

It takes the way of a real notice: a message of the task taskd.notify, run as the user of the pool `default`. What it
says begins with \"test:\", and \"test\" is true in its JSON. `after` and `at_most` do not hold for it, and what
fails is not tried again.

EXIT CODES
  0    everybody was told
  1    somebody was not told; it says why
  69   no such task; taskd is not running
  73   nobody is to be told of this
  75   not all of them were told within --timeout; it goes on
  77   not permitted: needs [access] admin")]
    Test {
        /// The task's name
        #[arg(value_name = "NAME")]
        task: String,
        /// What is told
        #[arg(long, value_enum, value_name = "KIND", default_value = "failure")]
        kind: Kind,
    },
    /// Print the JSON Schema of what programs and webhooks get
    #[command(after_help = "\
EXAMPLES
  taskd notify schema > notice.schema.json

EXIT CODES
  0    it is printed")]
    Schema,
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// It failed
    Failure,
    /// It succeeds again
    Recovery,
    /// A message of it is dead
    Dead,
    /// It did not run by its time
    Missed,
}

impl From<Kind> for notice::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Failure => Self::Failure,
            Kind::Recovery => Self::Recovery,
            Kind::Dead => Self::Dead,
            Kind::Missed => Self::Missed,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: Args, context: &Context) -> Ending {
    match args.command {
        Command::Test { task, kind } => {
            checked("task", &task)?;
            context.block_on(test(task, kind.into(), context))
        }
        Command::Schema => {
            let text = serde_json::to_string_pretty(&telling::schema()).unwrap_or_default();
            output::print(&format!("{text}\n"))?;
            Ok(0)
        }
    }
}

async fn test(task: String, kind: notice::Kind, context: &Context) -> Ending {
    let mut client = context.client();
    let body = body_of(&NotifyBody { task, kind })?;
    let sent: Vec<Enqueued> = client.call(Method::Post, "/v1/notify", Some(body), false).await?;
    let mut worst = 0;
    for one in sent {
        let waiting = follow::until_final(&mut client, &one.id);
        let (answer, view) = enqueue::within(context, &one.id, waiting).await?;
        if view.state != State::Success {
            worst = UNTOLD;
        }
        if context.json {
            output::json(&answer)?;
        } else {
            output::print(&format!("{}\n", line(&view)))?;
        }
    }
    Ok(worst)
}

/// Who, and what came of it.
fn line(view: &MessageView) -> String {
    let target = view.kwargs.get("target").and_then(|t| t.as_str()).unwrap_or_default();
    let outcome = view.outcome.as_ref();
    if view.state == State::Success {
        let how = outcome.and_then(|o| o.result.as_ref()).and_then(|r| r.as_str()).unwrap_or_default();
        return format!("{}: {GREEN}told{RESET}: {}", output::clean(target), output::clean(how));
    }
    // What the program said of it stands at the end of its stderr.
    let said = outcome.and_then(|o| o.failure.as_ref()).map(|f| f.traceback.trim()).filter(|t| !t.is_empty());
    let why = said.map(|t| output::clean(&t.replace('\n', "; "))).or_else(|| ending::sentence(view));
    format!("{}: {RED}not told{RESET}: {}", output::clean(target), why.unwrap_or_default())
}
