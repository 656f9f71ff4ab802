//! `taskd workflow`: the workflows that the config declares; and launching for all who do.

use std::time::Duration;

use crate::control::api::{LaunchedView, WorkflowBody};
use crate::control::canvas::DeclaredView;
use crate::control::client::{Client, ClientError};
use crate::control::route::Method;

use super::output::{self, Ending, Failure};
use super::table::{Column, render};
use super::{Context, body_of, checked, ending, enqueue, follow, result};

/// The exit codes of `taskd chain`, `group` and `chord`.
pub const LAUNCH_CODES: &str = "\
EXIT CODES
  0        launched
  64       the command line cannot be understood
  65       arguments do not fit a task; too large
  66       a file cannot be read
  69       no such task or queue; taskd is not running
  73       --id is that of a message, or somebody else's
  75       the queue is full, or no answer in time; try again
  77       not permitted: needs [access] enqueue, or a place in the allow of every task";

/// Options of `taskd workflow`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("\
EXAMPLES
  taskd workflow list
  taskd workflow run nightly
  taskd workflow run nightly --wait

The config declares them as [workflows.NAME]; `taskd graph NAME` draws one.

EXIT CODES
  0        launched; printed
  69       no such workflow; taskd is not running
  73       a task of it is disabled
  75       the queue is full, or no answer in time; try again
  77       not permitted: needs [access] enqueue, or a place in the allow of every task
EXIT CODES WITH --wait
{}", ending::CODES))]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What `taskd workflow` does.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum What {
    /// Launch a declared workflow
    #[command(after_help = "\
EXAMPLES
  taskd workflow run nightly --wait

EXIT CODES
  0    launched; with --wait it ended well, and otherwise as `taskd chain --help` lists
  69   no such workflow; taskd is not running
  73   a task of it is disabled
  75   the queue is full, or no answer in time; try again
  77   not permitted")]
    Run {
        /// What holds for the whole.
        #[command(flatten)]
        launch: Launching,
        /// Its name
        #[arg(value_name = "WORKFLOW")]
        workflow: String,
    },
    /// List the declared workflows
    #[command(after_help = "\
EXAMPLES
  taskd workflow list
  taskd workflow list --json | jq -r '.[].name'

EXIT CODES
  0    printed
  69   taskd is not running
  75   not now; try again
  77   not permitted: needs [access] read")]
    List,
}

/// Options of whatever launches a workflow.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Launching {
    /// The workflow's id; one that taskd knows already is not launched again
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Wait for its end: print its result, exit as it did
    #[arg(long)]
    pub wait: bool,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    match &args.what {
        What::Run { launch, workflow } => {
            let name = Some(checked("workflow", workflow)?.to_owned());
            launch.launch(WorkflowBody { name, ..WorkflowBody::default() }, context)
        }
        What::List => context.block_on(async {
            let answer =
                context.client().text(Method::Get, "/v1/workflows", None, true, Duration::ZERO).await?;
            context.show(&answer, |all: &Vec<DeclaredView>| text(all))?;
            Ok(0)
        }),
    }
}

/// The table.
fn text(all: &[DeclaredView]) -> String {
    if all.is_empty() {
        return "no workflow is declared; add [workflows.NAME] to the config and run `taskd reload`\n"
            .to_owned();
    }
    let rows = all.iter().map(|w| {
        let names: Vec<&str> = w.steps.iter().map(|s| s.name.as_str()).collect();
        vec![w.name.clone(), w.steps.len().to_string(), names.join(" ")]
    });
    render(&[Column::Text("WORKFLOW"), Column::Number("STEPS"), Column::Text("NAMES")], rows.collect())
}

impl Launching {
    /// Launches and prints the id; or waits, prints the result and ends as it did.
    ///
    /// # Errors
    /// What taskd or the connection says.
    pub fn launch(&self, mut body: WorkflowBody, context: &Context) -> Ending {
        let id = match &self.id {
            Some(id) => checked("id", id)?.to_owned(),
            None => enqueue::new_id(),
        };
        body.id = Some(id.clone());
        let body = body_of(&body)?;
        context.block_on(async {
            let mut client = context.client();
            let answer = client.call(Method::Post, "/v1/workflows", Some(body), true).await;
            let launched: LaunchedView = answer.map_err(|e| {
                let unclear = matches!(e, ClientError::Broken(_) | ClientError::Timeout(_));
                let failure = Failure::from(e);
                if unclear {
                    failure.hint(format!("whether it was launched is not known; repeat it with --id {id}"))
                } else {
                    failure
                }
            })?;
            if launched.known {
                output::note(format_args!("{id} was launched before"));
            }
            if !self.wait {
                let json = || serde_json::to_string(&launched).map_err(|e| Failure::internal(e.to_string()));
                output::print(&format!("{}\n", if context.json { json()? } else { launched.id.clone() }))?;
                return Ok(0);
            }
            wait_for(&mut client, &id, context).await
        })
    }
}

/// Waits for the end of a workflow and prints its result; the exit code says how it ended.
///
/// # Errors
/// What taskd or the connection says.
pub async fn wait_for(client: &mut Client, id: &str, context: &Context) -> Ending {
    let (answer, view) = enqueue::within(context, id, follow::until_final(client, id)).await?;
    result::show(&answer, &view, context)?;
    Ok(ending::exit_code(&view))
}
