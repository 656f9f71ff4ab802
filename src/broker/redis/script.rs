//! The script: the files of `lua/` in their order, behind the texts that Rust words.

use std::fmt::Write as _;

use super::outcomes;

/// The files, in the order in which they stand in the script.
const FILES: [&str; 13] = [
    include_str!("lua/base.lua"),
    include_str!("lua/claims.lua"),
    include_str!("lua/lanes.lua"),
    include_str!("lua/lives.lua"),
    include_str!("lua/sweep.lua"),
    include_str!("lua/celery.lua"),
    include_str!("lua/outside.lua"),
    include_str!("lua/letters.lua"),
    include_str!("lua/ticks.lua"),
    include_str!("lua/flows.lua"),
    include_str!("lua/joins.lua"),
    include_str!("lua/flow_ops.lua"),
    include_str!("lua/run.lua"),
];

/// The script of the express way, which stands alone: it is run far more often than the other one.
const EXPRESS: &str = include_str!("lua/express.lua");

/// The script of the express way; as [`text`].
pub(super) fn express(allow_oom: bool) -> String {
    let mut all = String::with_capacity(8 << 10);
    head(&mut all, allow_oom);
    file(&mut all, EXPRESS);
    all
}

fn head(all: &mut String, allow_oom: bool) {
    if allow_oom {
        all.push_str("#!lua flags=allow-oom\n");
    }
}

fn file(all: &mut String, text: &str) {
    // Comments and the indentation are for people: the script is sent once to each server, and kept there.
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--")) {
        // Writing to a text never fails.
        let _ = writeln!(all, "{line}");
    }
}

/// The whole text. `allow_oom`: the server knows the flag (Redis 7): what is leased is settled although its memory is
/// full.
pub(super) fn text(allow_oom: bool) -> String {
    let mut all = String::with_capacity(64 << 10);
    head(&mut all, allow_oom);
    // Writing to a text never fails.
    let _ = writeln!(all, "{}", outcomes::lua());
    for text in FILES {
        file(&mut all, text);
    }
    all
}
