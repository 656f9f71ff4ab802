//! `taskd reload`: reads and checks the config again; with `--binary` taskd becomes the installed program.

use std::time::Duration;

use hyper::body::Bytes;
use tokio::time::{Instant, sleep};

use crate::control::api::{Done, Error, ErrorKind, ReloadBody, StatusView};
use crate::control::client::{Client, ClientError};
use crate::control::route::Method;

use super::follow::Patience;
use super::output::{self, Ending, Failure};
use super::{Context, TIMEOUT, body_of, done_text};

/// Options of `taskd reload`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd reload
  systemctl reload taskd
  taskd reload --binary

A config with faults changes nothing; running tasks keep the definition they started with.

--binary is the upgrade without an interruption: the program that is installed now is tried first, and where
it cannot be executed, does not accept the config or cannot take over, nothing changes. Then it takes the
place of the running one. Running tasks go on and are recorded as usual; clients wait for a moment.

EXIT CODES
  0    the new settings are in force; what changed is printed. --binary: the new program runs
  69   taskd is not running
  70   --binary: the new program could not be executed after all; the old one goes on
  75   not now; try again
  77   not permitted: needs [access] admin
  78   the config has faults, or changes what needs a restart. --binary: the new program is not fit")]
pub struct Args {
    /// Replace taskd's program too, by the one that is installed now; running tasks go on
    #[arg(long)]
    pub binary: bool,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    context.block_on(async {
        let mut client = context.client();
        if args.binary {
            let done = replace(&mut client, context).await?;
            if context.json {
                output::json(&body_of(&done)?)?;
            } else {
                output::print(&done_text(&done))?;
            }
        } else {
            context.verb(&mut client, "/v1/reload", None).await?;
        }
        Ok(0)
    })
}

/// Asks for the replacement and waits for the daemon of the new program.
async fn replace(client: &mut Client, context: &Context) -> Result<Done, Failure> {
    let before: StatusView = client.call(Method::Get, "/v1/status", None, true).await?;
    let body: Bytes = body_of(&ReloadBody { binary: true })?;
    match client.call::<Done>(Method::Post, "/v1/reload", Some(body), false).await {
        // It is not known how far it came: the next daemon says so.
        Ok(_) | Err(ClientError::Broken(_)) => {}
        Err(e) => return Err(e.into()),
    }
    let after = next_daemon(client, before.epoch, context.timeout.unwrap_or(TIMEOUT)).await?;
    if after.upgrades == before.upgrades {
        return Err(match after.upgrade_failure {
            Some(why) => Failure::from(Error::new(ErrorKind::Internal, why)),
            None => Failure::later("the daemon ended while the new program was tried; nothing was replaced")
                .hint("try again"),
        });
    }
    Ok(Done {
        message: format!("taskd {} was replaced by {}; what ran goes on", before.version, after.version),
        ..Done::default()
    })
}

/// The status of a later daemon than this one, however many times the connection breaks until then.
async fn next_daemon(client: &mut Client, epoch: u64, bound: Duration) -> Result<StatusView, Failure> {
    let mut patience = Patience::new(bound);
    let until = Instant::now() + bound;
    loop {
        match client.call::<StatusView>(Method::Get, "/v1/status", None, true).await {
            Ok(status) if status.epoch > epoch => return Ok(status),
            // The old one takes a moment to close the socket.
            Ok(_) if Instant::now() < until => sleep(Duration::from_millis(20)).await,
            Ok(_) => {
                let bound = humantime::format_duration(bound);
                return Err(Failure::later(format!("taskd was not replaced within {bound}"))
                    .hint("its log says how far it is"));
            }
            // The launcher keeps the socket open all the time: without it taskd was stopped meanwhile.
            Err(e @ (ClientError::NoSocket(_) | ClientError::NotListening(_))) => return Err(e.into()),
            Err(e) => patience.bear(e).await?,
        }
    }
}
