//! Expressions drawn at random. What a drawn text means is written down while it is put together, so that nothing
//! that is compared with the parser has to parse.

use std::collections::BTreeSet;

use super::rng::Rng;

/// A drawn field: its text and the values that it means.
#[derive(Clone)]
pub struct Field {
    pub text: String,
    pub values: BTreeSet<u32>,
}

impl Field {
    /// Whether it begins with `*`.
    pub fn star(&self) -> bool {
        self.text.starts_with('*')
    }

    /// Whether it is a plain `*`.
    pub fn plain(&self) -> bool {
        self.text == "*"
    }
}

/// A drawn expression.
#[derive(Clone)]
pub struct Drawn {
    pub second: Option<Field>,
    pub minute: Field,
    pub hour: Field,
    pub day: Field,
    pub month: Field,
    pub weekday: Field,
}

impl Drawn {
    pub fn text(&self) -> String {
        let rest = [&self.minute, &self.hour, &self.day, &self.month, &self.weekday];
        self.second.iter().chain(rest).map(|f| f.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// Debian's flags `MIN_STAR` and `HR_STAR`.
    pub fn wild(&self) -> bool {
        self.minute.star() || self.hour.star()
    }

    /// Whether a day matches, by its day of month, month and day of week (Sunday = 0).
    pub fn day_matches(&self, day: u32, month: u32, weekday: u32) -> bool {
        let (day, weekday) = (self.day.values.contains(&day), self.weekday.values.contains(&weekday));
        let either = !self.day.star() && !self.weekday.star();
        self.month.values.contains(&month) && if either { day || weekday } else { day && weekday }
    }
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 8] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat", "7"];

/// A value as its number or its name, now and then in capitals.
fn written(rng: &mut Rng, value: u32, names: &[&str], min: u32) -> String {
    match names.get((value - min) as usize) {
        Some(name) if rng.chance(500) => {
            if rng.chance(300) {
                name.to_uppercase()
            } else {
                (*name).to_owned()
            }
        }
        _ if rng.chance(50) => format!("{value:02}"),
        _ => value.to_string(),
    }
}

/// A value near the low end now and then: hours in which clocks change.
fn value(rng: &mut Rng, min: u32, max: u32, low: u64) -> u32 {
    let top = if rng.chance(low) { max.min(min + 3) } else { max };
    rng.between(u64::from(min), u64::from(top)) as u32
}

struct Shape {
    min: u32,
    max: u32,
    /// Chance of a plain `*`, in a thousand.
    plain: u64,
    /// Chance of a value near the low end, in a thousand.
    low: u64,
    names: &'static [&'static str],
}

fn item(rng: &mut Rng, shape: &Shape, may_star: bool) -> (String, Vec<u32>) {
    let Shape { min, max, low, names, .. } = *shape;
    let step = |rng: &mut Rng| if rng.chance(100) { rng.between(1, 70) } else { rng.between(1, 12) } as u32;
    match rng.below(if may_star { 4 } else { 3 }) {
        0 => {
            let n = value(rng, min, max, low);
            (written(rng, n, names, min), vec![n])
        }
        kind @ (1 | 2) => {
            let (a, b) = (value(rng, min, max, low), value(rng, min, max, low));
            let (a, b) = (a.min(b), a.max(b));
            let text = format!("{}-{}", written(rng, a, names, min), written(rng, b, names, min));
            if kind == 1 {
                return (text, (a..=b).collect());
            }
            let step = step(rng);
            (format!("{text}/{step}"), (a..=b).step_by(step as usize).collect())
        }
        _ => {
            let step = step(rng);
            (format!("*/{step}"), (min..=max).step_by(step as usize).collect())
        }
    }
}

fn field(rng: &mut Rng, shape: &Shape) -> Field {
    if rng.chance(shape.plain) {
        return Field { text: "*".to_owned(), values: (shape.min..=shape.max).collect() };
    }
    let items = if rng.chance(650) { 1 } else { rng.between(2, 4) };
    let (mut texts, mut values) = (Vec::new(), BTreeSet::new());
    for n in 0..items {
        let may_star = n == 0 || rng.chance(100);
        let (text, more) = item(rng, shape, may_star);
        texts.push(text);
        values.extend(more);
    }
    Field { text: texts.join(","), values }
}

/// An expression; with seconds if so wanted.
pub fn expression(rng: &mut Rng, six: bool) -> Drawn {
    let shape = |min, max, plain, low, names| Shape { min, max, plain, low, names };
    let mut weekday = field(rng, &shape(0, 7, 650, 0, &DAYS));
    weekday.values = weekday.values.iter().map(|n| n % 7).collect();
    Drawn {
        second: six.then(|| field(rng, &shape(0, 59, 50, 0, &[]))),
        minute: field(rng, &shape(0, 59, 150, 100, &[])),
        hour: field(rng, &shape(0, 23, 250, 700, &[])),
        day: field(rng, &shape(1, 31, 600, 0, &[])),
        month: field(rng, &shape(1, 12, 800, 0, &MONTHS)),
        weekday,
    }
}
