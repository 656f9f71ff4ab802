//! The calendar alone, in UTC and over years: days counted one by one, and croner.

use std::str::FromStr;

use jiff::civil::date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use taskd::cron::{Expr, Timing, Zone};
use taskd::model::time::Wall;

use super::draw;
use super::reasons;
use super::rng::Rng;

fn planned(timing: &Timing, from: i64, most: usize) -> Vec<i64> {
    let mut at = Wall(from * 1000);
    let mut out = Vec::new();
    while out.len() < most
        && let Some(next) = timing.next(at)
    {
        at = next.at;
        out.push(at.0 / 1000);
    }
    out
}

#[test]
fn eight_years_of_days_match_by_count() {
    let mut rng = Rng::new(super::number("SEED", 1));
    let first = date(2024, 1, 1).to_zoned(TimeZone::UTC).unwrap();
    let days: Vec<_> = (0..2922).map(|n| first.checked_add(n.days()).unwrap()).collect();
    let mut never = 0;
    for _ in 0..600 {
        let drawn = draw::expression(&mut rng, false);
        let Ok(expr) = Expr::parse(&drawn.text()) else {
            never += 1;
            let matches = |d: &jiff::Zoned| {
                drawn.day_matches(
                    d.day() as u32,
                    d.month() as u32,
                    d.weekday().to_sunday_zero_offset() as u32,
                )
            };
            assert!(!days.iter().any(matches), "{} was refused", drawn.text());
            continue;
        };
        // The first time of each day is enough: the others are compared around the changes of the clocks.
        let time = drawn.hour.values.first().unwrap() * 3600 + drawn.minute.values.first().unwrap() * 60;
        let timing = Timing::Cron { expr, zone: Zone::utc() };
        for day in &days {
            let midnight = day.timestamp().as_second();
            let next = timing.next(Wall(midnight * 1000 - 1)).map(|p| p.at.0 / 1000);
            let weekday = day.weekday().to_sunday_zero_offset() as u32;
            let matches = drawn.day_matches(day.day() as u32, day.month() as u32, weekday);
            let wanted = matches.then_some(midnight + i64::from(time));
            let got = next.filter(|at| *at < midnight + 86_400);
            assert_eq!(got, wanted, "{} on {}", drawn.text(), day.date());
        }
    }
    assert!(never < 60, "{never} of the drawn expressions never fire");
}

#[test]
fn croner_agrees_in_utc() {
    let mut rng = Rng::new(super::number("SEED", 1) + 1);
    let mut same = 0;
    while same < 3000 {
        let drawn = draw::expression(&mut rng, false);
        if reasons::croner_days(&drawn) || reasons::croner_sundays(&drawn) {
            continue;
        }
        let Ok(expr) = Expr::parse(&drawn.text()) else { continue };
        let from = rng.between(1_700_000_000, 1_900_000_000) as i64;
        let cron = croner::Cron::from_str(&drawn.text()).unwrap();
        let mut at = Timestamp::from_second(from).unwrap().to_zoned(TimeZone::UTC);
        let mut theirs = Vec::new();
        while theirs.len() < 12
            && let Ok(next) = cron.find_next_occurrence(&at, false)
        {
            theirs.push(next.timestamp().as_second());
            at = next;
        }
        let timing = Timing::Cron { expr, zone: Zone::utc() };
        assert_eq!(planned(&timing, from, 12), theirs, "{} after {from}", drawn.text());
        same += 1;
    }
}
