//! `taskd schedules run`: what a schedule enqueues or launches, now and beside its plan.

use std::time::Duration;

use crate::control::api::{Enqueued, RunBody};
use crate::control::client::ClientError;
use crate::control::route::Method;

use super::super::output::{self, Ending, Failure};
use super::super::{Context, body_of, checked, ending, enqueue, parse, workflow};

/// Options of `taskd schedules run`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("\
EXAMPLES
  taskd schedules run nightly
  taskd schedules run nightly --wait

It enqueues the schedule's task with its arguments, or launches its workflow, at once, paused or not, whatever runs. The
plan goes on as it would, but sees the run: with overlap = \"skip\" a planned time that comes while it runs is left out.
It prints the id of the message or workflow.

EXIT CODES
  0        stored
  69       no such schedule; taskd is not running
  73       its task, or a task of its workflow, is disabled
  75       the queue is full, or no answer in time; try again
  77       not permitted: needs [access] enqueue, or a place in the task's allow
EXIT CODES WITH --wait
{}", ending::CODES))]
pub struct Args {
    /// The schedule's name
    #[arg(value_name = "SCHEDULE")]
    pub name: String,
    /// Wait for its end: print its output, or its result if it is a workflow; exit as it did
    #[arg(long)]
    pub wait: bool,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let path = format!("/v1/schedules/{}/run", checked("schedule", &args.name)?);
    // Made here, so that a request whose connection breaks is repeated safely.
    let body = body_of(&RunBody { id: Some(uuid::Uuid::now_v7().to_string()) })?;
    context.block_on(async {
        let mut client = context.client();
        let answer = client.text(Method::Post, &path, Some(body), true, Duration::ZERO).await?;
        let enqueued: Vec<Enqueued> = parse(&answer)?;
        let Some(first) = enqueued.first() else {
            return Err(ClientError::Strange("no message in the answer".to_owned()).into());
        };
        if args.wait && first.workflow {
            return workflow::wait_for(&mut client, &first.id, context).await;
        }
        if args.wait {
            return enqueue::wait_for(&mut client, &first.id, context).await;
        }
        if context.json {
            let text = serde_json::to_string(first).map_err(|e| Failure::internal(e.to_string()))?;
            output::print(&format!("{text}\n"))?;
        } else {
            output::print(&format!("{}\n", first.id))?;
        }
        Ok(0)
    })
}
