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
