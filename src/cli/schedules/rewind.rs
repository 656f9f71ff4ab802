//! `taskd schedules rewind`: forgets that a schedule fired after a time.

use super::super::output::{self, Ending, Failure};
use super::super::{Context, body_of, checked, moment};
use super::time::{self, FORMATS, Side};
use crate::control::api::RewindBody;

/// Options of `taskd schedules rewind`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd schedules rewind reports --to 06:00
  taskd schedules rewind reports --to \"2026-11-20 00:00\" --yes

Its fires after TIME are forgotten, and what was planned since then is as if taskd had been down: with catch_up = \"last\"
the latest of it fires again, with \"all\" the latest catch_up_max. Without --yes it only says how many that would be.

EXIT CODES
  0    said what would fire, or done with --yes
  64   the command line cannot be understood
  65   TIME is not past
  69   no such schedule; taskd is not running
  73   the schedule has catch_up = \"none\", is paused or disabled, or follows its own ends
  75   not now; try again
  77   not permitted: needs [access] admin")]
pub struct Args {
    /// The schedule's name
    #[arg(value_name = "SCHEDULE")]
    pub name: String,
    #[arg(long, value_name = "TIME", help = format!("Fires after this time are forgotten: {FORMATS} ago"))]
    pub to: String,
    /// The zone of TIME [default: the system's]
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// Do it
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command.
///
/// # Errors
/// What taskd, the connection or the command line says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let zone =
        moment::zone(args.timezone.as_deref()).map_err(|why| Failure::usage(format!("--timezone: {why}")))?;
    let to = time::parse(&args.to, &zone, moment::now(), Side::Past)
        .map_err(|why| Failure::usage(format!("--to: {why}")))?;
    let path = format!("/v1/schedules/{}/rewind", checked("schedule", &args.name)?);
    let body = body_of(&RewindBody { to, dry: !args.yes })?;
    context.block_on(async {
        context.verb(&mut context.client(), &path, Some(body)).await?;
        if !args.yes {
            output::note("nothing was done; repeat it with --yes");
        }
        Ok(0)
    })
}
