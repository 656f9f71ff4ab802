//! Time zones, as the system's tzdata knows them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::wrong::Wrong;

/// A time zone with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    zone: TimeZone,
    name: String,
}

/// A stretch of time with one UTC offset. Times are seconds since 1970, offsets are seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) offset: i64,
    /// When it began, and the offset before.
    pub(super) start: Option<(i64, i64)>,
    /// When it ends, and the offset after.
    pub(super) end: Option<(i64, i64)>,
}

impl Zone {
    /// The zone of this name, as in /usr/share/zoneinfo. Its rules are read once and kept.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self, Wrong> {
        let zone = TimeZone::get(name).map_err(|_| {
            let help = "write it as in /usr/share/zoneinfo, as \"Europe/Berlin\"; the package tzdata must be installed";
            Wrong::new(format!("names a time zone that does not exist: {name:?}"), help)
        })?;
        Ok(Self::from(zone))
    }

    /// The zone of the machine; UTC where it has none.
    #[must_use]
    pub fn system() -> Self {
        Self::from(TimeZone::system())
    }

    /// Coordinated universal time.
    #[must_use]
    pub fn utc() -> Self {
        Self { zone: TimeZone::UTC, name: "UTC".to_owned() }
    }

    /// `Europe/Berlin`; `local` for a machine's zone that has no name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The zone itself, for printing times.
    #[must_use]
    pub fn time_zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The stretch that this second stands in; absent outside of the years that can be reckoned with.
    pub(super) fn stretch(&self, at: i64) -> Option<Stretch> {
        let here = Timestamp::from_second(at).ok()?;
        let offset = i64::from(self.zone.to_offset(here).seconds());
        let start = match self.zone.preceding(Timestamp::from_second(at.checked_add(1)?).ok()?).next() {
            Some(change) => {
                let second = change.timestamp().as_second();
                let before = Timestamp::from_second(second.checked_sub(1)?).ok()?;
                Some((second, i64::from(self.zone.to_offset(before).seconds())))
            }
            None => None,
        };
        let end = self.zone.following(here).next();
        let end = end.map(|change| (change.timestamp().as_second(), i64::from(change.offset().seconds())));
        Some(Stretch { offset, start, end })
    }
}

impl From<TimeZone> for Zone {
    fn from(zone: TimeZone) -> Self {
        let name = zone.iana_name().unwrap_or("local").to_owned();
        Self { zone, name }
    }
}
