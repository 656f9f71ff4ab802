//! `taskd stop`: shuts down and waits until it is gone.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::control::api::StopBody;

use super::output::{Ending, Failure};
use super::{Context, TIMEOUT, body_of};

/// Options of `taskd stop`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd stop
  taskd stop --timeout 5m
  taskd stop --now

Running tasks get [taskd] shutdown_grace; what is not done by then goes back to its queue and runs again
after the next start. Under systemd use `systemctl stop taskd.socket taskd`: while its socket is there, the next
command that asks taskd starts it again.

EXIT CODES
  0    taskd is gone
  69   taskd is not running
  75   it is still shutting down after --timeout
  77   not permitted: needs [access] admin")]
pub struct Args {
    /// Do not wait for running tasks: they go back to their queues
    #[arg(long)]
    pub now: bool,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says; it is still there after the bound.
pub fn run(args: &Args, context: &Context) -> Ending {
    let body = body_of(&StopBody { now: args.now })?;
    let bound = context.timeout.unwrap_or(TIMEOUT);
    context.block_on(async {
        let deadline = Instant::now() + bound;
        let mut client = context.client();
        context.verb(&mut client, "/v1/stop", Some(body)).await?;
        let gone = async {
            // The server keeps the connection of whoever asked for a stop to its very end.
            client.wait_closed().await;
            // The launcher goes last.
            while client.listener().is_some_and(is_taskd) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout_at(deadline, gone).await.map_err(|_| {
            let bound = humantime::format_duration(bound);
            Failure::later(format!("taskd is still shutting down after {bound}"))
                .hint("--timeout sets another bound, --now does not wait for running tasks")
        })?;
        Ok(0)
    })
}

/// Whether this process is a living taskd: with a socket that systemd made it is systemd, which stays.
fn is_taskd(pid: i32) -> bool {
    // proc(5): the state follows the name, which stands in parentheses.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            let (before, after) = stat.rsplit_once(')')?;
            let (_, name) = before.split_once('(')?;
            Some(name.starts_with("taskd") && !after.trim_start().starts_with(['Z', 'X']))
        })
        .unwrap_or(false)
}
