//! One expression at one change of the clocks: ours, Debian's loop and croner.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use taskd::cron::{Edge, Expr, Pass, Planned, Timing, Zone};
use taskd::model::time::Wall;

use super::debian::{self, Window};
use super::draw::Drawn;
use super::reasons::{self, Verdict};

/// The timing of a drawn expression; none for days that never come.
pub fn timing(drawn: &Drawn, window: &Window) -> Option<Timing> {
    let expr = match Expr::parse(&drawn.text()) {
        Ok(expr) => expr,
        Err(wrong) if wrong.message.contains("never comes") => return None,
        Err(wrong) => panic!("{}: {wrong:?}", drawn.text()),
    };
    Some(Timing::Cron { expr, zone: Zone::from(window.tz.clone()) })
}

/// What is said of a planned time must be so, as the zone itself has it; and where there is something to say, it is.
fn edge_is_true(planned: &Planned, tz: &TimeZone) {
    let of = |local: DateTime| tz.to_ambiguous_timestamp(local).offset();
    let shown = Timestamp::from_millisecond(planned.at.0).unwrap().to_zoned(tz.clone());
    let (local, offset) = (shown.datetime(), shown.offset());
    match planned.edge {
        None => {
            assert!(matches!(of(local), AmbiguousOffset::Unambiguous { .. }), "nothing is said of {shown}")
        }
        Some(Edge::Gap { meant, runs }) => {
            assert!(matches!(of(meant), AmbiguousOffset::Gap { .. }), "{meant} exists, for {shown}");
            assert_eq!(runs, local);
        }
        Some(Edge::Fold { at, pass }) => {
            assert_eq!(at, local);
            let AmbiguousOffset::Fold { before, after } = of(at) else { panic!("{shown} comes once") };
            assert_eq!(offset, if pass == Pass::Second { after } else { before }, "{shown}");
        }
    }
}

/// Every planned second in (after, until], asked for one after the other.
pub fn ours(timing: &Timing, (after, until): (i64, i64)) -> Vec<i64> {
    let Timing::Cron { zone, .. } = timing else { panic!("{timing:?} has no zone") };
    let mut at = Wall(after * 1000 + 999);
    let mut out = Vec::new();
    while let Some(planned) = timing.next(at) {
        assert!(planned.at > at, "time runs backwards at {at:?}");
        at = planned.at;
        if at.0 > until * 1000 {
            break;
        }
        assert_eq!(at.0 % 1000, 0);
        edge_is_true(&planned, zone.time_zone());
        out.push(at.0 / 1000);
    }
    out
}

/// Ours beside Debian's.
pub fn with_debian(drawn: &Drawn, ours: &[i64], window: &Window) -> (Verdict, Vec<i64>) {
    let theirs = debian::instants(drawn, &debian::starts(drawn, window), window);
    (reasons::debian(ours, &theirs, window), theirs)
}

/// Ours beside croner's.
pub fn with_croner(drawn: &Drawn, ours: &[i64], window: &Window) -> (Verdict, Vec<i64>) {
    let (after, until) = window.span();
    let mut theirs = Vec::new();
    let text = drawn.text();
    let parser = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Optional).build();
    let cron = parser.parse(&text).or_else(|_| croner::Cron::from_str(&text));
    match cron {
        Ok(cron) => {
            let mut at = Timestamp::from_second(after).unwrap().to_zoned(window.tz.clone());
            while let Ok(next) = cron.find_next_occurrence(&at, false) {
                if next.timestamp().as_second() > until {
                    break;
                }
                theirs.push(next.timestamp().as_second());
                at = next;
            }
        }
        Err(e) => panic!("croner refuses {text}: {e}"),
    }
    (reasons::croner(drawn, ours, &theirs, window), theirs)
}
