//! `taskd schedules explain`: an expression in words, and when it is next.

use jiff::Timestamp;
use serde::Serialize;

use crate::control::api::{Error, ErrorKind};
use crate::cron::{Edge, Expr, Planned, Timing, Wrong, Zone};
use crate::model::time::Wall;

use super::super::output::{self, BOLD, DIM, Ending, Failure, RESET, YELLOW};
use super::super::{Context, moment};
use super::time::{self, FORMATS, Side};

/// Options of `taskd schedules explain`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd schedules explain \"0 3 * * 1-5\"
  taskd schedules explain \"30 2 * * *\" --tz Europe/Berlin --after 2026-03-28
  taskd schedules explain @daily -n 30 --json | jq -r '.next[].local'

It asks no taskd and reads no config. The fields are those of crontab(5): minute, hour, day of month, month, day of
week; with six fields the first is the second. Where neither day field begins with *, a day has to match only one of
them. Instead of fields there may be @hourly, @daily, @weekly, @monthly or @yearly.

Where the clocks change: if the minute or the hour begins with *, real time counts. Otherwise the time of day does: a
time that is skipped runs at the change, and a time that comes twice runs the first time only.

EXIT CODES
  0    printed
  64   there is no such time zone or time
  65   the expression is wrong")]
pub struct Args {
    /// The expression, in quotes
    #[arg(value_name = "EXPR")]
    pub expression: String,
    /// The time zone of the expression [default: the system's]
    #[arg(long = "tz", alias = "timezone", value_name = "ZONE")]
    pub zone: Option<String>,
    /// How many times to print
    #[arg(short = 'n', long = "next", value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub next: u16,
    #[arg(long, value_name = "TIME", help = format!("Begin after this time: {FORMATS} from now [default: now]"))]
    pub after: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Explained<'a> {
    expression: &'a str,
    words: String,
    timezone: &'a str,
    /// Whether it follows real time where the clocks change.
    real_time: bool,
    next: Vec<Next>,
}

#[derive(Serialize)]
struct Next {
    /// Milliseconds since 1970.
    at: i64,
    /// RFC 3339, with the offset.
    local: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    edge: Option<Named>,
}

/// What a change of the clocks does to a time.
#[derive(Serialize)]
struct Named {
    kind: &'static str,
    text: String,
}

/// Runs the command.
///
/// # Errors
/// The expression, the zone or the time cannot be understood; stdout cannot be written.
pub fn run(args: &Args, context: &Context) -> Ending {
    let expr = Expr::parse(&args.expression).map_err(|wrong| refused(&args.expression, wrong))?;
    let zone = match &args.zone {
        None => Zone::system(),
        Some(name) => Zone::named(name)
            .map_err(|wrong| Failure::usage(format!("--tz {}", wrong.message)).hint(wrong.help))?,
    };
    let now = moment::now();
    let after = match &args.after {
        None => now,
        Some(text) => after(text, &zone, now).map_err(|e| Failure::usage(format!("--after: {e}")))?,
    };
    let (words, real_time) = (expr.words(), expr.is_wild());
    let timing = Timing::Cron { expr, zone: zone.clone() };
    let planned: Vec<Planned> = std::iter::successors(timing.next(Wall(after)), |last| timing.next(last.at))
        .take(args.next.into())
        .collect();
    if context.json {
        let next = planned.iter().map(|p| Next {
            at: p.at.0,
            local: shown(p, &zone, "%Y-%m-%dT%H:%M:%S%:z"),
            edge: p.edge.map(|edge| Named { kind: kind(edge), text: edge.to_string() }),
        });
        let explained = Explained {
            expression: args.expression.trim(),
            words,
            timezone: zone.name(),
            real_time,
            next: next.collect(),
        };
        let text = serde_json::to_vec(&explained).map_err(|e| Failure::internal(e.to_string()))?;
        output::json(&text)?;
    } else {
        output::print(&text(&words, &planned, &zone, now))?;
    }
    Ok(0)
}

fn text(words: &str, planned: &[Planned], zone: &Zone, now: i64) -> String {
    let mut text = format!("{BOLD}{words}{RESET} {DIM}({}){RESET}\n", output::clean(zone.name()));
    for one in planned {
        let relative = moment::relative(one.at.0, now);
        text.push_str(&format!(
            "  {}  {DIM}{relative}{RESET}\n",
            shown(one, zone, "%a %Y-%m-%d %H:%M:%S %:z")
        ));
        if let Some(edge) = one.edge {
            text.push_str(&format!("      {YELLOW}{edge}{RESET}\n"));
        }
    }
    if planned.is_empty() {
        text.push_str("  never again: the calendar ends with the year 2100\n");
    }
    text
}

fn shown(planned: &Planned, zone: &Zone, format: &str) -> String {
    Timestamp::from_millisecond(planned.at.0).map_or_else(
        |_| format!("{} ms", planned.at.0),
        |at| at.to_zoned(zone.time_zone().clone()).strftime(format).to_string(),
    )
}

const fn kind(edge: Edge) -> &'static str {
    match edge {
        Edge::Gap { .. } => "gap",
        Edge::Fold { .. } => "fold",
    }
}

/// What is planned for the midnight of a day is of the day.
fn after(text: &str, zone: &Zone, now: i64) -> Result<i64, String> {
    let at = time::parse(text, zone.time_zone(), now, Side::Future)?;
    Ok(if time::is_day(text) { at.saturating_sub(1) } else { at })
}

/// What is wrong with an expression, with the place marked below it.
fn refused(text: &str, wrong: Wrong) -> Failure {
    let mut error = Error::new(ErrorKind::BadArguments, format!("the expression {}", wrong.message));
    if let Some(span) = wrong.span
        && let (Some(before), Some(bad)) = (text.get(..span.start), text.get(span))
        && !text.contains(char::is_control)
    {
        let marks = bad.chars().count().max(1);
        error.details =
            vec![text.to_owned(), format!("{}{}", " ".repeat(before.chars().count()), "^".repeat(marks))];
    }
    error.hint = Some(wrong.help);
    Failure::from(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrong_part_is_marked() {
        let failure = |text: &str| match refused(text, Expr::parse(text).unwrap_err()) {
            Failure::Told { code, error } => (code, error.details),
            Failure::Quiet(_) => unreachable!(),
        };
        assert_eq!(failure("0 61 * * *"), (65, vec!["0 61 * * *".to_owned(), "  ^^".to_owned()]));
        assert_eq!(failure(" * * * * é"), (65, vec![" * * * * é".to_owned(), "         ^".to_owned()]));
        assert_eq!(failure("* *"), (65, Vec::new()));
    }

    #[test]
    fn a_day_begins_with_its_midnight() {
        let zone = Zone::named("Europe/Berlin").unwrap();
        let midnight = moment::moment("2026-03-28 00:00", zone.time_zone(), 0).unwrap();
        assert_eq!(after("2026-03-28", &zone, 0), Ok(midnight - 1));
        assert_eq!(after("2026-03-28 00:00", &zone, 0), Ok(midnight));
        assert_eq!(after("1h", &zone, 5), Ok(3_600_005));
        assert!(after("soon", &zone, 0).is_err());
    }
}
