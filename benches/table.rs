//! Every figure that `make bench` wrote, as one table; exit code 1 when one was missed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench says what is wrong by panicking"
)]
#![allow(unreachable_pub, reason = "the harness is shared with the tests")]

use serde_json::Value;

#[path = "harness/figure.rs"]
#[allow(dead_code, reason = "only the directory is needed")]
mod figure;

fn main() -> std::process::ExitCode {
    let mut files: Vec<_> =
        std::fs::read_dir(figure::directory()).unwrap().flatten().map(|e| e.path()).collect();
    files.sort();
    let text = |v: &Value, key: &str| v[key].as_str().unwrap_or("").to_owned();
    let mut missed = 0;
    println!("| figure | taskd | beside | ratio | limit | verdict |\n|---|---|---|---|---|---|");
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "json")) {
        let Ok(v) = serde_json::from_slice::<Value>(&std::fs::read(file).unwrap()) else { continue };
        let number = |key: &str| v[key].as_f64().unwrap_or(f64::NAN);
        missed += usize::from(v["verdict"] == "MISSED");
        println!(
            "| {} | {:.1} {} | {:.1} ({}) | {:.3} | {} | {} |",
            text(&v, "what"),
            number("taskd"),
            text(&v, "unit"),
            number("baseline"),
            text(&v, "beside"),
            number("ratio"),
            text(&v, "limit"),
            text(&v, "verdict"),
        );
    }
    std::process::ExitCode::from(u8::from(missed > 0))
}
