//! `taskd schedules next`: planned times to come, as they are planned and as they fire here.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::control::api::PlannedView;
use crate::control::route::Method;

use super::super::output::{BOLD, DIM, Ending, RESET, YELLOW, clean};
use super::super::{Context, checked, moment};

/// Options of `taskd schedules next`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd schedules next
  taskd schedules next nightly -n 100
  taskd schedules next --json | jq -r '.[] | [.at, .schedule] | @tsv'

Times are those of the schedule's zone, with the UTC offset of the day. What a change of the clocks does to one is said
beside it. Of a schedule with align = false only the next time is known, and none while it runs. A schedule that is
paused or disabled has planned times too, when it is named: they pass, and each is marked (`held_back` with --json:
disabled, asked or failures).

EXIT CODES
  0    printed
  64   the command line cannot be understood
  69   no such schedule; taskd is not running
  75   not now; try again
  77   not permitted: needs [access] read")]
pub struct Args {
    /// Only this schedule, paused and disabled ones too [default: all that fire]
    #[arg(value_name = "SCHEDULE")]
    pub name: Option<String>,
    /// How many times to print
    #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: u16,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let path = match &args.name {
        Some(name) => format!("/v1/schedules/{}/next?n={}", checked("schedule", name)?, args.count),
        None => format!("/v1/schedules/next?n={}", args.count),
    };
    context.block_on(async {
        let answer = context.client().text(Method::Get, &path, None, true, Duration::ZERO).await?;
        let (now, zone) = (moment::now(), TimeZone::system());
        context.show(&answer, |times: &Vec<PlannedView>| text(times, args.name.is_none(), now, &zone))?;
        Ok(0)
    })
}

/// One line a time, and one below for what is to be said of it.
#[must_use]
pub fn text(times: &[PlannedView], names: bool, now: i64, system: &TimeZone) -> String {
    if times.is_empty() {
        return "nothing is planned\n".to_owned();
    }
    let mut text = String::new();
    for t in times {
        let own = t.timezone.as_deref().and_then(|name| moment::zone(Some(name)).ok());
        let zone = own.as_ref().unwrap_or(system);
        let at = Timestamp::from_millisecond(t.at).map_or_else(
            |_| format!("{} ms", t.at),
            |at| at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string(),
        );
        let name = if names { format!("  {BOLD}{}{RESET}", clean(&t.schedule)) } else { String::new() };
        let zone = t.timezone.as_deref().map(|z| format!(" {}", clean(z))).unwrap_or_default();
        text.push_str(&format!("{at}{zone}  {DIM}{}{RESET}{name}\n", moment::relative(t.at, now)));
        if let Some(why) = &t.held_back {
            text.push_str(&format!("    {YELLOW}{}{RESET}\n", passes(why)));
        }
        if let Some(edge) = &t.edge {
            text.push_str(&format!("    {YELLOW}{}{RESET}\n", clean(edge)));
        }
        if let later @ 1.. = t.fires_at.saturating_sub(t.at) {
            let later = moment::span(later.unsigned_abs());
            text.push_str(&format!("    {DIM}fires {later} later on this node (splay){RESET}\n"));
        }
    }
    text
}

/// What becomes of a planned time that is held back.
fn passes(why: &str) -> String {
    match why {
        "disabled" => "passes: the schedule, or a task of it, is disabled".to_owned(),
        "asked" => "passes: the schedule is paused".to_owned(),
        "failures" => "passes: the schedule is paused after failures".to_owned(),
        other => format!("passes: {}", clean(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_says_its_offset_its_edge_and_its_splay() {
        let zone = moment::zone(Some("UTC")).unwrap();
        let view = PlannedView {
            schedule: "nightly".into(),
            // 2026-03-29 03:00 in Berlin, when 02:30 was meant.
            at: 1_774_746_000_000,
            fires_at: 1_774_746_090_000,
            timezone: Some("Europe/Berlin".into()),
            held_back: Some("asked".into()),
            edge: Some("02:30 does not exist on this day, runs at 03:00".into()),
        };
        let shown = text(&[view], true, 1_774_742_400_000, &zone);
        assert_eq!(
            anstream::adapter::strip_str(&shown).to_string(),
            "Sun 2026-03-29 03:00:00 +02:00 Europe/Berlin  in 1h  nightly\n\
             \x20   passes: the schedule is paused\n\
             \x20   02:30 does not exist on this day, runs at 03:00\n\
             \x20   fires 1m 30s later on this node (splay)\n"
        );
    }
}
