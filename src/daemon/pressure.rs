//! Memory pressure as the kernel tells it (PSI), looked at only while a bound is set and there is work that it
//! could hold back.

use std::path::PathBuf;

use crate::model::time::Mono;

/// Where the kernel tells it.
const FILE: &str = "/proc/pressure/memory";

/// How often it is looked at, in milliseconds: the kernel's shortest average is one of 10 s.
const EVERY_MS: u64 = 2_000;

/// The reader.
#[derive(Debug)]
pub struct Pressure {
    file: PathBuf,
    next: Option<Mono>,
    above: Option<u32>,
    fault: Option<String>,
}

/// What a look brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Same,
    /// It is above the bound (hundredths of a percent), or is not any more.
    Changed(Option<u32>),
    /// It cannot be known: nothing is held back. Told once.
    Fault(String),
}

impl Default for Pressure {
    fn default() -> Self {
        Self::new(FILE.into())
    }
}

impl Pressure {
    /// Reads this file.
    #[must_use]
    pub const fn new(file: PathBuf) -> Self {
        Self { file, next: None, above: None, fault: None }
    }

    /// Why the bound has no effect.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// When it is to be looked at again; none while nobody needs to know.
    #[must_use]
    pub const fn next(&self) -> Option<Mono> {
        self.next
    }

    /// Looks if it is time. `bound`: in hundredths of a percent; `work`: something runs or waits.
    pub fn look(&mut self, now: Mono, bound: Option<u32>, work: bool) -> Look {
        let Some(bound) = bound else {
            self.next = None;
            self.fault = None;
            return if self.above.take().is_some() { Look::Changed(None) } else { Look::Same };
        };
        if !work {
            // The first look after this is at once.
            self.next = None;
            return Look::Same;
        }
        if self.next.is_some_and(|at| at > now) {
            return Look::Same;
        }
        self.next = Some(now.plus(EVERY_MS));
        match self.read() {
            Ok(value) => {
                self.fault = None;
                self.judge(value, bound)
            }
            // What is held back goes on; the next look tells why.
            Err(_) if self.above.take().is_some() => Look::Changed(None),
            Err(_) if self.fault.is_some() => Look::Same,
            Err(why) => {
                self.fault = Some(why.clone());
                Look::Fault(why)
            }
        }
    }

    /// Above the bound it closes, below it opens, at the bound it stays as it is.
    fn judge(&mut self, value: u32, bound: u32) -> Look {
        let above = match self.above {
            Some(_) if value >= bound => Some(value),
            None if value > bound => Some(value),
            _ => None,
        };
        if above == self.above {
            return Look::Same;
        }
        self.above = above;
        Look::Changed(above)
    }

    fn read(&self) -> Result<u32, String> {
        let text = std::fs::read_to_string(&self.file)
            .map_err(|e| format!("{} cannot be read: {e}", self.file.display()))?;
        some_avg10(&text).ok_or_else(|| format!("{} has no `some avg10`", self.file.display()))
    }
}

/// `some avg10` of a file of PSI (Documentation/accounting/psi.rst), in hundredths of a percent.
fn some_avg10(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|l| l.strip_prefix("some "))?;
    let value = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    let (whole, part) = value.split_once('.').unwrap_or((value, "0"));
    let part = format!("{part:0<2}");
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part.get(..2)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
some avg10=12.34 avg60=1.00 avg300=0.10 total=123
full avg10=99.00 avg60=0.00 avg300=0.00 total=4
";

    #[test]
    fn the_kernels_words_are_understood() {
        assert_eq!(some_avg10(TEXT), Some(1_234));
        assert_eq!(some_avg10("some avg10=100.00 avg60=0\n"), Some(10_000));
        assert_eq!(some_avg10("some avg10=3 x\n"), Some(300));
        for bad in ["", "full avg10=1.00", "some avg60=1.00", "some avg10=x.00", "some avg10=-1.00"] {
            assert_eq!(some_avg10(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn it_looks_while_there_is_work_and_a_bound_and_closes_above_until_it_is_below() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory");
        let mut p = Pressure::new(file.clone());
        let set = |value: &str| std::fs::write(&file, format!("some avg10={value} avg60=0.00\n")).unwrap();
        let bound = Some(2_000);
        set("50.00");
        assert_eq!((p.look(Mono(0), None, true), p.next()), (Look::Same, None));
        assert_eq!((p.look(Mono(0), bound, false), p.next()), (Look::Same, None));
        assert_eq!(p.look(Mono(0), bound, true), Look::Changed(Some(5_000)));
        assert_eq!(p.next(), Some(Mono(2_000)));
        set("20.00");
        assert_eq!(p.look(Mono(1_999), bound, true), Look::Same, "not yet");
        assert_eq!(p.look(Mono(2_000), bound, true), Look::Changed(Some(2_000)), "at the bound is not below");
        set("19.99");
        assert_eq!(p.look(Mono(4_000), bound, true), Look::Changed(None));
        set("20.00");
        assert_eq!(p.look(Mono(6_000), bound, true), Look::Same, "at the bound is not above");
        set("20.01");
        assert_eq!(p.look(Mono(8_000), bound, true), Look::Changed(Some(2_001)));
        assert_eq!(p.look(Mono(8_500), bound, false), Look::Same);
        set("1.00");
        assert_eq!(p.look(Mono(8_501), bound, true), Look::Changed(None), "at once after a rest");
        set("90.00");
        assert_eq!(p.look(Mono(20_000), bound, true), Look::Changed(Some(9_000)));
        assert_eq!(p.look(Mono(20_001), None, true), Look::Changed(None), "a reload took the bound away");
    }

    #[test]
    fn where_it_cannot_be_known_nothing_is_held_back_and_that_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory");
        let mut p = Pressure::new(file.clone());
        let first = p.look(Mono(0), Some(100), true);
        assert!(matches!(&first, Look::Fault(why) if why.contains("memory cannot be read")), "{first:?}");
        assert!(p.fault().is_some());
        assert_eq!(p.look(Mono(2_000), Some(100), true), Look::Same);
        std::fs::write(&file, "some avg10=2.00\n").unwrap();
        assert_eq!(p.look(Mono(4_000), Some(100), true), Look::Changed(Some(200)));
        assert_eq!(p.fault(), None);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(p.look(Mono(6_000), Some(100), true), Look::Changed(None));
        assert!(matches!(p.look(Mono(8_000), Some(100), true), Look::Fault(_)));
    }
}
