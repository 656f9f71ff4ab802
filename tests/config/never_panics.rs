//! Whatever the file holds, the answer is settings or a report.

use proptest::prelude::*;

use super::{laptop, load, server};

const FILES: &[&str] = &[
    include_str!("design.toml"),
    include_str!("bad.toml"),
    include_str!("../../config/quickstart.toml"),
    include_str!("../../config/examples/web-shop.toml"),
    include_str!("../../config/examples/nightly.toml"),
    include_str!("../../config/examples/resident-workers.toml"),
];

/// What mutations put in: what TOML and the values are made of.
const PIECES: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\"",
    "'",
    "\n",
    "\"\"\"",
    "'''",
    "#",
    "-",
    "\u{0}",
    "ü",
    "\u{202e}",
    "\r\n",
    "\t",
    "5",
    "-1",
    "99999999999999999999",
    "1e400",
    "nan",
    "inf",
    "true",
    "1979-05-27T07:32:00Z",
    "\"1M\"",
    "\"{x}\"",
    "\\",
    "\\u0000",
    "tasks",
    "params",
    "defaults",
    "routes",
    "environment",
    "[tasks.a]\n",
    "[[routes]]\n",
    "x = 1\n",
    "[[tasks]]\n",
    "a.b.c.d.e.f = {}\n",
];

/// Cuts, repeats and inserts at drawn places.
fn mutate(text: &str, steps: &[(u8, prop::sample::Index, prop::sample::Index)]) -> String {
    let mut text = text.to_owned();
    for (what, at, piece) in steps {
        let cut = text.floor_char_boundary(at.index(text.len() + 1));
        match what % 4 {
            0 => text.insert_str(cut, PIECES[piece.index(PIECES.len())]),
            1 => {
                let end = text.floor_char_boundary((cut + 1 + piece.index(40)).min(text.len()));
                text.replace_range(cut..end.max(cut), "");
            }
            2 => {
                let other = FILES[piece.index(FILES.len())];
                let line = other.lines().nth(at.index(other.lines().count())).unwrap_or_default();
                text.insert_str(cut, line);
            }
            _ => {
                let end = text[cut..].find('\n').map_or(text.len(), |i| cut + i);
                let line = text[cut..end].to_owned();
                text.push_str(&line);
            }
        }
    }
    text
}

fn judge(text: &str) {
    for env in [server(), laptop()] {
        match load(text, &env) {
            Ok(loaded) => {
                let shown = taskd::config::show(&loaded, true);
                assert!(load(&shown, &env).is_ok(), "what is shown does not read back:\n{shown}");
            }
            Err(report) => {
                assert!(!report.is_empty());
                let _ = report.render(true);
                let lines = text.matches('\n').count() as u64 + 1;
                for fault in report.to_json().as_array().unwrap() {
                    assert!(fault["line"].as_u64().is_none_or(|l| (1..=lines).contains(&l)), "{fault}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn mutated_files(
        file in 0..FILES.len(),
        steps in prop::collection::vec((any::<u8>(), any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..12),
    ) {
        judge(&mutate(FILES[file], &steps));
    }

    #[test]
    fn drawn_text(text in "\\PC*") {
        judge(&text);
    }

    #[test]
    fn drawn_pieces(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        judge(&pieces.concat());
    }
}

#[test]
fn deep_and_long_input() {
    let dotted = vec!["a"; 79].join(".");
    let nested = (0..75).fold("1".to_owned(), |inner, _| format!("{{ {dotted} = {inner} }}"));
    for text in [
        format!("x = {nested}\n"),
        format!("[schedules.s]\nkwargs = {nested}\n"),
        format!("x = {}\n", "[".repeat(10_000)),
        format!("{} = 1\n", vec!["a"; 10_000].join(".")),
        format!("[{}]\n", vec!["a"; 10_000].join(".")),
        format!("[tasks.a]\ncommand = \"{}\"\n", "x".repeat(1 << 20)),
        "x = 5\n".repeat(5_000),
        "\n".repeat(100_000),
        "]".repeat(20_000),
    ] {
        judge(&text);
    }
}
