//! One field of an expression: what may stand in it, and the values that it means.

use super::wrong::Wrong;

/// What a field is of: its name, the bounds of its values, and the names of these from the first on.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) what: &'static str,
    pub(super) min: u32,
    pub(super) max: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

pub(super) const SECOND: Kind = Kind { what: "second", min: 0, max: 59, names: &[] };
pub(super) const MINUTE: Kind = Kind { what: "minute", min: 0, max: 59, names: &[] };
pub(super) const HOUR: Kind = Kind { what: "hour", min: 0, max: 23, names: &[] };
pub(super) const DAY: Kind = Kind { what: "day of month", min: 1, max: 31, names: &[] };
pub(super) const MONTH: Kind = Kind { what: "month", min: 1, max: 12, names: MONTHS };
/// Sunday is 0 in what is read; 7 is taken for it too.
pub(super) const WEEKDAY: Kind = Kind { what: "day of week", min: 0, max: 6, names: DAYS };

/// A set of values, and whether it was written with a `*` in front: crontab(5) gives that a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    bits: u64,
    pub(super) star: bool,
}

impl Field {
    /// The one value 0: the seconds of an expression of five fields.
    pub(super) const ZERO: Self = Self { bits: 1, star: false };

    /// Reads a field that begins at this byte of the whole.
    pub(super) fn parse(kind: &Kind, text: &str, start: usize) -> Result<Self, Wrong> {
        let mut bits = 0_u64;
        let mut at = start;
        for item in text.split(',') {
            let (from, to, step) = kind.item(item, at)?;
            let values = (from..=to).step_by(usize::try_from(step).unwrap_or(usize::MAX));
            for value in values {
                // Sunday's other number.
                let value = if kind.what == WEEKDAY.what { value % 7 } else { value };
                bits |= 1 << value;
            }
            at = at.saturating_add(item.len()).saturating_add(1);
        }
        Ok(Self { bits, star: text.starts_with('*') })
    }

    /// The values, ascending.
    pub(super) fn values(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |n| self.bits >> n & 1 == 1)
    }

    /// How many values there are.
    pub(super) const fn count(self) -> u32 {
        self.bits.count_ones()
    }

    /// Whether every value of the kind is meant.
    pub(super) const fn is_full(self, kind: &Kind) -> bool {
        self.count() == kind.max - kind.min + 1
    }

    /// The lowest and the highest value.
    pub(super) fn ends(self) -> (u32, u32) {
        (self.bits.trailing_zeros(), 63_u32.saturating_sub(self.bits.leading_zeros()))
    }

    /// The constant distance between the values, where there are three at least.
    pub(super) fn step(self) -> Option<u32> {
        let all: Vec<u32> = self.values().collect();
        let gaps: Vec<u32> = all.iter().zip(all.iter().skip(1)).map(|(a, b)| b.saturating_sub(*a)).collect();
        match gaps.as_slice() {
            [first, _, ..] if gaps.iter().all(|g| g == first) => Some(*first),
            _ => None,
        }
    }
}

impl Kind {
    /// `*`, `n`, `n-m`; `*` and the last also with `/step`: the first and the last value, and the step.
    fn item(&self, item: &str, start: usize) -> Result<(u32, u32, u32), Wrong> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let bounds = match range.split_once('-') {
            _ if range == "*" => Some((self.min, self.max)),
            Some((from, to)) => match (self.value(from), self.value(to)) {
                (Some(from), Some(to)) if from > to => {
                    return Err(self.backwards(range, to, item).at(start, item));
                }
                (Some(from), Some(to)) => Some((from, to)),
                _ => None,
            },
            None => match self.value(range) {
                Some(value) if step.is_some() => {
                    let help = format!(
                        "write \"{value}-{}/{}\" for steps from {value} on",
                        self.max,
                        step.unwrap_or("2")
                    );
                    return Err(Wrong::new(
                        format!("has a step after a single {}: {item:?}", self.what),
                        help,
                    )
                    .at(start, item));
                }
                single => single.map(|n| (n, n)),
            },
        };
        let step = step.map_or(Some(1), |s| number(s).filter(|n| *n > 0));
        match (bounds, step) {
            (Some((from, to)), Some(step)) => Ok((from, to, step)),
            (None, _) => Err(self.wrong(item, range).at(start, item)),
            (_, None) => {
                let help = "the step after / is a whole number from 1 on, as in */5";
                Err(Wrong::new(format!("has the step {item:?} as {}", self.what), help).at(start, item))
            }
        }
    }

    fn backwards(&self, range: &str, to: u32, item: &str) -> Wrong {
        let help = if self.what == WEEKDAY.what && to == 0 {
            let monday_first = range.rsplit_once('-').map_or(range, |(from, _)| from);
            format!("Sunday is also 7: write \"{monday_first}-7\"")
        } else {
            let (from, to) = range.split_once('-').unwrap_or((range, ""));
            format!("write the two halves: \"{from}-{},{}-{to}\"", self.max, self.min)
        };
        Wrong::new(format!("has {item:?} as {}, which runs backwards", self.what), help)
    }

    fn wrong(&self, item: &str, range: &str) -> Wrong {
        let what = self.what;
        let message = if item.is_empty() {
            format!("has an empty part as {what}")
        } else {
            format!("has {item:?} as {what}")
        };
        let (_, last) = self.bounds();
        let long = self.names.iter().find(|n| {
            range.len() > n.len()
                && range.get(..n.len()).is_some_and(|head| head.eq_ignore_ascii_case(n))
                && range.chars().all(|c| c.is_ascii_alphabetic())
        });
        if let Some(name) = long {
            return Wrong::new(message, format!("names have three letters: write \"{name}\""));
        }
        if matches!(range, "?" | "L" | "W") || item.contains(['#', 'L', 'W']) && self.names.is_empty() {
            let help = "crontab(5) has no ?, L, W or #: write * or the days themselves";
            return Wrong::new(message, help);
        }
        let names = match (self.names.first(), self.names.last()) {
            (Some(first), Some(last)) => format!(", or {first} to {last}"),
            _ => String::new(),
        };
        let article = if what == HOUR.what { "an" } else { "a" };
        let help = format!(
            "{article} {what} is between {} and {last}{names}; also a range as 1-5, a list as 1,3, * and steps as */2",
            self.min
        );
        Wrong::new(message, help)
    }

    /// The bounds of what may be written: Sunday is 7 too.
    fn bounds(&self) -> (u32, u32) {
        (self.min, if self.what == WEEKDAY.what { 7 } else { self.max })
    }

    fn value(&self, text: &str) -> Option<u32> {
        if let Some(i) = self.names.iter().position(|n| n.eq_ignore_ascii_case(text)) {
            return u32::try_from(i).ok().map(|i| i.saturating_add(self.min));
        }
        let (min, max) = self.bounds();
        number(text).filter(|n| (min..=max).contains(n))
    }
}

fn number(text: &str) -> Option<u32> {
    // A sign is none of crontab's.
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}
