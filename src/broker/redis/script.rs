//! The script: the files of `lua/` in their order, behind the texts that Rust words.

use std::fmt::Write as _;

use super::outcomes;

/// The files, in the order in which they stand in the script.
const FILES: [&str; 14] = [
    include_str!("lua/base.lua"),
    include_str!("lua/claims.lua"),
    include_str!("lua/lanes.lua"),
    include_str!("lua/lives.lua"),
    include_str!("lua/sweep.lua"),
    include_str!("lua/nodes.lua"),
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

/// What becomes of a script while the server's memory is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// It is run all the same: what is leased ends, and that frees memory in the end.
    Runs,
    /// It is refused: it begins something new.
    Refused,
}

/// The script of the express way; `flags` as in [`text`].
pub(super) fn express(flags: bool) -> String {
    let mut all = String::with_capacity(8 << 10);
    head(&mut all, flags, Full::Runs);
    file(&mut all, EXPRESS);
    all
}

/// Flags are of Redis 7. An older one looks at its memory until a script has written once, and a removal of what is not
/// there is such a write.
fn head(all: &mut String, flags: bool, full: Full) {
    all.push_str(match (flags, full) {
        (true, Full::Runs) => "#!lua flags=allow-oom\n",
        (true, Full::Refused) => "#!lua\n",
        (false, Full::Runs) => "redis.call('DEL', ARGV[1] .. 'taskd.none')\n",
        (false, Full::Refused) => "",
    });
}

fn file(all: &mut String, text: &str) {
    // Comments and the indentation are for people: the script is sent once to each server, and kept there.
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--")) {
        // Writing to a text never fails.
        let _ = writeln!(all, "{line}");
    }
}

/// The whole text. `flags`: the server knows the flags of scripts.
pub(super) fn text(flags: bool, full: Full) -> String {
    let mut all = String::with_capacity(64 << 10);
    head(&mut all, flags, full);
    // Writing to a text never fails.
    let _ = writeln!(all, "{}", outcomes::lua());
    for text in FILES {
        file(&mut all, text);
    }
    all
}
