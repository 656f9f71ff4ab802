//! One figure: rounds of baseline and taskd measured side by side, its ratio, its limit, its verdict.

use std::path::PathBuf;

use serde_json::json;

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The ratio must be at least the limit.
    Higher,
    /// The ratio must be at most the limit.
    Lower,
}

/// A figure being measured.
pub struct Figure {
    /// File name and table row.
    pub name: &'static str,
    /// What is measured, a short sentence.
    pub what: &'static str,
    /// Of both columns.
    pub unit: &'static str,
    /// What it is compared with.
    pub beside: &'static str,
    /// Which way is good, and how far the ratio must go; `None`: reported only.
    pub limit: Option<(Better, f64)>,
    rounds: Vec<(f64, f64)>,
}

/// The middle value (of an even number: the mean of the middle two).
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    assert!(n > 0, "nothing was measured");
    f64::midpoint(values[(n - 1) / 2], values[n / 2])
}

/// The value below which `percent` of them lie.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * percent / 100]
}

/// Where results are written: beside the profile's directory in `target/`.
pub fn directory() -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_taskd"));
    let target = binary.ancestors().nth(2).unwrap().join("bench");
    std::fs::create_dir_all(&target).unwrap();
    target
}

/// The machine's load over the last minute: above the number of its cores, rates say little.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

impl Figure {
    /// A figure with a limit.
    pub fn new(
        name: &'static str,
        what: &'static str,
        unit: &'static str,
        beside: &'static str,
        limit: Option<(Better, f64)>,
    ) -> Self {
        Self { name, what, unit, beside, limit, rounds: Vec::new() }
    }

    /// One round: what the baseline did and what taskd did.
    pub fn round(&mut self, baseline: f64, taskd: f64) {
        println!("  {}: {baseline:.1} and {taskd:.1} {}", self.beside, self.unit);
        self.rounds.push((baseline, taskd));
    }

    /// Prints it and writes it down; whether it holds.
    pub fn end(self) -> bool {
        let baseline = median(self.rounds.iter().map(|r| r.0).collect());
        let taskd = median(self.rounds.iter().map(|r| r.1).collect());
        let ratio = taskd / baseline;
        let holds = match self.limit {
            None => true,
            Some((Better::Higher, limit)) => ratio >= limit,
            Some((Better::Lower, limit)) => ratio <= limit,
        };
        let limit = match self.limit {
            None => "reported".to_owned(),
            Some((Better::Higher, limit)) => format!(">= {limit}"),
            Some((Better::Lower, limit)) => format!("<= {limit}"),
        };
        let verdict = match (self.limit, holds) {
            (None, _) => "-",
            (_, true) => "holds",
            (_, false) => "MISSED",
        };
        println!(
            "{}: {taskd:.1} {} beside {baseline:.1} ({}): ratio {ratio:.3}, {limit}: {verdict}",
            self.what, self.unit, self.beside
        );
        let record = json!({
            "name": self.name, "what": self.what, "unit": self.unit, "beside": self.beside,
            "baseline": baseline, "taskd": taskd, "ratio": ratio, "limit": limit, "verdict": verdict,
            "rounds": self.rounds, "load": load(),
        });
        std::fs::write(directory().join(format!("{}.json", self.name)), format!("{record:#}\n")).unwrap();
        holds
    }
}

/// The exit code of a bench: 1 when a limit was missed.
pub fn exit(holds: &[bool]) -> std::process::ExitCode {
    if holds.iter().all(|h| *h) { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
