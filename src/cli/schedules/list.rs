//! `taskd schedules`, and `taskd schedules list`: every schedule, when it is next and how it went.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::control::api::ScheduleView;
use crate::control::route::Method;

use super::super::output::{Ending, clean};
use super::super::table::{Column, render};
use super::super::{Context, moment};

/// Options of `taskd schedules list`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd schedules list
  taskd schedules list --json | jq -r '.[] | [.name, .next] | @tsv'

It is what `taskd schedules` does without a command.

EXIT CODES
  0    printed
  69   taskd is not running
  75   not now; try again
  77   not permitted: needs [access] read")]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(context: &Context) -> Ending {
    context.block_on(async {
        let answer = context.client().text(Method::Get, "/v1/schedules", None, true, Duration::ZERO).await?;
        let (now, zone) = (moment::now(), TimeZone::system());
        context.show(&answer, |schedules: &Vec<ScheduleView>| text(schedules, now, &zone))?;
        Ok(0)
    })
}

/// The table, and below it what does not fit into columns.
#[must_use]
pub fn text(schedules: &[ScheduleView], now: i64, zone: &TimeZone) -> String {
    if schedules.is_empty() {
        return "no schedules (declare them with [schedules.NAME])\n".to_owned();
    }
    let mut notes = String::new();
    let rows = schedules.iter().map(|s| {
        let name = clean(&s.name);
        if s.paused.as_deref() == Some("failures") && s.failures > 0 {
            notes.push_str(&format!(
                "{name}: paused after {} failures in a row; taskd schedules resume {name}\n",
                s.failures
            ));
        } else if s.paused.is_none() && s.failures > 0 {
            notes.push_str(&format!("{name}: {} failed in a row\n", s.failures));
        }
        if s.held > 0 {
            notes.push_str(&format!("{name}: {} wait for the run before\n", s.held));
        }
        let own = s.timezone.as_deref().and_then(|name| moment::zone(Some(name)).ok());
        let next =
            s.next.map(|at| local(at.saturating_add_unsigned(s.offset_ms), own.as_ref().unwrap_or(zone)));
        let last = s.last.as_ref().map(|l| format!("{} {}", moment::relative(l.planned, now), l.state));
        let state = match (s.enabled, s.paused.is_some(), s.live > 0) {
            (false, ..) => "disabled",
            (_, true, _) => "paused",
            (.., true) => "active",
            _ => "waits",
        };
        vec![
            s.name.clone(),
            runs(s),
            s.when.clone(),
            next.unwrap_or_else(|| "-".to_owned()),
            last.unwrap_or_else(|| "-".to_owned()),
            state.to_owned(),
        ]
    });
    let columns = [
        Column::Text("SCHEDULE"),
        Column::Text("RUNS"),
        Column::Text("WHEN"),
        Column::Text("NEXT"),
        Column::Text("LAST"),
        Column::Whole("STATE"),
    ];
    let table = render(&columns, rows.collect());
    if notes.is_empty() { table } else { format!("{table}\n{notes}") }
}

/// Its task, or its workflow and that it is one.
fn runs(s: &ScheduleView) -> String {
    match (&s.task, &s.workflow) {
        (None, Some(workflow)) => format!("workflow {workflow}"),
        (task, _) => task.clone().unwrap_or_default(),
    }
}

/// `11-24 03:00 CET`, with seconds where there are any.
fn local(ms: i64, zone: &TimeZone) -> String {
    let Ok(at) = jiff::Timestamp::from_millisecond(ms) else { return format!("{ms} ms") };
    let at = at.to_zoned(zone.clone());
    at.strftime(if at.second() == 0 { "%m-%d %H:%M %Z" } else { "%m-%d %H:%M:%S %Z" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::LastFire;
    use crate::model::state::State;

    #[test]
    fn schedules_fit_the_terminal() {
        let zone = moment::zone(Some("UTC")).unwrap();
        let plain = |list: &[ScheduleView]| {
            anstream::adapter::strip_str(&text(list, 1_790_000_000_000, &zone)).to_string()
        };
        let nightly = ScheduleView {
            name: "nightly".into(),
            task: Some("backup".into()),
            when: "at 03:00".into(),
            timezone: Some("Europe/Berlin".into()),
            next: Some(1_790_038_800_000),
            enabled: true,
            last: Some(LastFire {
                planned: 1_789_952_400_000,
                id: "i".into(),
                state: State::Success,
                workflow: false,
            }),
            ..ScheduleView::default()
        };
        let broken = ScheduleView {
            name: "broken".into(),
            when: "every 30s".into(),
            timezone: None,
            next: None,
            paused: Some("failures".into()),
            failures: 3,
            ..nightly.clone()
        };
        assert_eq!(
            plain(&[nightly.clone(), broken]),
            "\
SCHEDULE  RUNS    WHEN       NEXT              LAST                 STATE
nightly   backup  at 03:00   09-22 03:00 CEST  13h 13m ago SUCCESS  waits
broken    backup  every 30s  -                 13h 13m ago SUCCESS  paused

broken: paused after 3 failures in a row; taskd schedules resume broken
"
        );
        let long = ScheduleView {
            name: "n".repeat(128),
            task: Some("t".repeat(128)),
            when: "w ".repeat(99),
            ..nightly
        };
        assert!(plain(&[long]).lines().all(|l| l.chars().count() <= 80));
        assert!(plain(&[]).contains("no schedules"));
    }
}
