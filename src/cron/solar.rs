//! Events of the sun at a place.
//!
//! Each UTC day is searched by itself from its beginning, so that an event is the same instant for whoever asks.

use solar_positioning::delta_t;
use solar_positioning::{Horizon, Location, SolarEvents};

/// What the sun does, by the names that Celery has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SolarEvent {
    /// The sun comes up to 18 degrees below the horizon.
    DawnAstronomical,
    /// To 12 degrees below it.
    DawnNautical,
    /// To 6 degrees below it.
    DawnCivil,
    /// Its upper edge appears.
    Sunrise,
    /// It crosses the meridian.
    SolarNoon,
    /// Its upper edge disappears.
    Sunset,
    /// It goes down to 6 degrees below the horizon.
    DuskCivil,
    /// To 12 degrees below it.
    DuskNautical,
    /// To 18 degrees below it.
    DuskAstronomical,
}

/// The Julian date of 1970-01-01T00:00Z.
const EPOCH: f64 = 2_440_587.5;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Days after which an event that did not come never comes: a pole sees one sunrise a year.
const LONGEST_WAIT: i64 = 2 * 366;

/// The days that can be reckoned with: those of the years 1970 to 2100, as for expressions.
const DAYS: std::ops::Range<i64> = 0..47_847;

impl SolarEvent {
    /// Every event, in the order of a day, with its name.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::DawnAstronomical, "dawn_astronomical"),
        (Self::DawnNautical, "dawn_nautical"),
        (Self::DawnCivil, "dawn_civil"),
        (Self::Sunrise, "sunrise"),
        (Self::SolarNoon, "solar_noon"),
        (Self::Sunset, "sunset"),
        (Self::DuskCivil, "dusk_civil"),
        (Self::DuskNautical, "dusk_nautical"),
        (Self::DuskAstronomical, "dusk_astronomical"),
    ];

    /// The names alone, in the same order.
    pub const NAMES: &'static [&'static str] = &[
        "dawn_astronomical",
        "dawn_nautical",
        "dawn_civil",
        "sunrise",
        "solar_noon",
        "sunset",
        "dusk_civil",
        "dusk_nautical",
        "dusk_astronomical",
    ];

    /// The event of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(event, _)| *event)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(event, _)| *event == self).map_or("", |(_, name)| name)
    }

    const fn horizon(self) -> Horizon {
        match self {
            Self::DawnAstronomical | Self::DuskAstronomical => Horizon::AstronomicalTwilight,
            Self::DawnNautical | Self::DuskNautical => Horizon::NauticalTwilight,
            Self::DawnCivil | Self::DuskCivil => Horizon::CivilTwilight,
            Self::Sunrise | Self::Sunset | Self::SolarNoon => Horizon::SunriseSunset,
        }
    }
}

/// A place on the earth, in degrees north and east.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) latitude: f64,
    pub(super) longitude: f64,
}

/// The first such event after `after`, both in seconds since 1970; none where it never comes.
pub(super) fn next(event: SolarEvent, place: Place, after: i64) -> Option<i64> {
    let first = after.div_euclid(DAY).saturating_sub(1).clamp(DAYS.start, DAYS.end);
    let days = first..first.saturating_add(LONGEST_WAIT).min(DAYS.end);
    days.map(|day| of_day(event, place, day))
        .find_map(|times| times.into_iter().flatten().find(|t| *t > after))
}

/// The last such event in `(after, until]`, in seconds since 1970.
pub(super) fn latest(event: SolarEvent, place: Place, after: i64, until: i64) -> Option<i64> {
    let last = until.div_euclid(DAY).clamp(DAYS.start, DAYS.end);
    let first =
        after.div_euclid(DAY).saturating_sub(1).max(last.saturating_sub(LONGEST_WAIT)).max(DAYS.start);
    (first..=last)
        .rev()
        .map(|day| of_day(event, place, day))
        .find_map(|times| times.into_iter().flatten().rfind(|t| *t <= until))
        .filter(|t| *t > after)
}

/// The events of a UTC day (its number since 1970), ascending: at most two, where a day is as short as near a
/// pole in the week when its sun stops setting. Whole seconds, so that a bit of rounding makes no other instant.
fn of_day(event: SolarEvent, place: Place, day: i64) -> [Option<i64>; 2] {
    // The years above keep far away from where a day number is no exact float.
    let start = EPOCH + day as f64;
    let Ok(delta_t) = delta_t::estimate(1970.0 + day as f64 / 365.2425) else {
        return [None, None];
    };
    let end = start + 1.0;
    let find = |from: f64| {
        let (events, horizon) = (SolarEvents::new(), event.horizon());
        let at = Location { latitude: place.latitude, longitude: place.longitude };
        let found = match event {
            SolarEvent::SolarNoon => events.next_transit_from_julian(from, end, place.longitude, delta_t),
            SolarEvent::DawnAstronomical
            | SolarEvent::DawnNautical
            | SolarEvent::DawnCivil
            | SolarEvent::Sunrise => events.next_rise_from_julian(from, end, at, delta_t, horizon),
            _ => events.next_set_from_julian(from, end, at, delta_t, horizon),
        };
        found.ok().flatten()
    };
    let first = find(start);
    let second = first.and_then(find);
    // Rounding saturates, and is far from it in these years.
    [first, second].map(|found| found.map(|julian| ((julian - EPOCH) * DAY as f64).round() as i64))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::Timing;
    use super::*;
    use crate::model::time::Wall;

    fn timing(event: &str, latitude: f64, longitude: f64) -> Timing {
        Timing::Solar { event: SolarEvent::named(event).unwrap(), latitude, longitude }
    }

    fn second(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    #[test]
    fn events_are_where_an_ephemeris_has_them() {
        // PyEphem 4.2, observed as Celery's solar schedule does: horizon -0:34 with the sun's edge, no air pressure.
        for (event, latitude, longitude, at) in [
            ("dawn_astronomical", 52.52, 13.405, "2026-03-20T03:13:00Z"),
            ("dawn_nautical", 52.52, 13.405, "2026-03-20T03:55:00Z"),
            ("dawn_civil", 52.52, 13.405, "2026-03-20T04:35:14Z"),
            ("sunrise", 52.52, 13.405, "2026-03-20T05:09:15Z"),
            ("solar_noon", 52.52, 13.405, "2026-03-20T11:13:49Z"),
            ("sunset", 52.52, 13.405, "2026-03-20T17:19:26Z"),
            ("dusk_civil", 52.52, 13.405, "2026-03-20T17:53:34Z"),
            ("dusk_nautical", 52.52, 13.405, "2026-03-20T18:33:59Z"),
            ("dusk_astronomical", 52.52, 13.405, "2026-03-20T19:16:14Z"),
            ("sunrise", -0.18, -78.47, "2026-03-20T11:17:59Z"),
            ("dusk_nautical", -0.18, -78.47, "2026-03-20T00:09:27Z"),
            ("sunset", -36.85, 174.76, "2026-03-20T06:33:01Z"),
            ("dawn_civil", -36.85, 174.76, "2026-03-20T17:58:28Z"),
            ("sunset", 69.65, 18.96, "2026-03-20T17:01:30Z"),
        ] {
            let next = timing(event, latitude, longitude).next(Wall(second("2026-03-20T00:00:00Z") * 1000));
            let got = next.unwrap().at.0 / 1000;
            // Half a minute is what air makes of it on any day.
            assert!((got - second(at)).abs() <= 30, "{event} at {latitude}: {} s off", got - second(at));
        }
    }

    #[test]
    fn a_polar_night_waits_for_its_end() {
        // Longyearbyen: no sunset from April to August, no sunrise from October to February.
        let days = |event: &str, from: &str| {
            let next = timing(event, 78.22, 15.65).next(Wall(second(from) * 1000)).unwrap();
            Timestamp::from_millisecond(next.at.0).unwrap().strftime("%m-%d").to_string()
        };
        let (set, rise) = (days("sunset", "2026-05-01T00:00:00Z"), days("sunrise", "2026-11-15T00:00:00Z"));
        assert!(("08-20".."08-30").contains(&set.as_str()), "{set}");
        assert!(("02-10".."02-20").contains(&rise.as_str()), "{rise}");
        // At a pole there is one a year.
        let pole = timing("sunrise", 90.0, 0.0);
        let first = pole.next(Wall(second("2026-01-01T00:00:00Z") * 1000)).unwrap();
        let year = pole.next(first.at).unwrap().at.since(first.at) / 86_400_000;
        assert!((364..=367).contains(&year), "{year} days");
    }

    #[test]
    fn whoever_asks_is_told_the_same_instants() {
        for (event, latitude) in
            [("sunset", 52.5), ("dawn_astronomical", 66.0), ("sunrise", 70.0), ("solar_noon", -45.0)]
        {
            let timing = timing(event, latitude, 171.0);
            let from = Wall(second("2026-03-01T00:00:00Z") * 1000);
            let mut all = vec![timing.next(from).unwrap().at];
            while all.len() < 60 {
                let last = *all.last().unwrap();
                all.push(timing.next(last).unwrap().at);
            }
            let last = *all.last().unwrap();
            let between: Vec<Wall> = timing.between(from, last, 1000).iter().map(|p| p.at).collect();
            assert_eq!(between, all, "{event}");
            for pair in all.windows(2) {
                let middle = Wall(i64::midpoint(pair[0].0, pair[1].0));
                assert_eq!(timing.next(middle).unwrap().at, pair[1], "{event}");
                assert_eq!(timing.next(Wall(pair[1].0 - 1)).unwrap().at, pair[1], "{event}");
                assert_eq!(timing.latest(from, middle).unwrap().at, pair[0], "{event}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_never() {
        assert_eq!(timing("sunset", f64::NAN, 0.0).next(Wall(0)), None);
        assert_eq!(timing("sunset", 0.0, 0.0).next(Wall(i64::MAX)), None);
        assert!(timing("sunset", 0.0, 0.0).next(Wall(i64::MIN)).is_some());
        assert_eq!(SolarEvent::named("noon"), None);
        assert!(SolarEvent::ALL.iter().map(|(_, name)| *name).eq(SolarEvent::NAMES.iter().copied()));
    }
}
