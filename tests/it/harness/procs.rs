//! Processes as /proc shows them.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Every process id with its parent's, zombies left out.
pub fn parents() -> BTreeMap<i32, i32> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if let Some((state, parent)) = state_and_parent(pid)
            && state != 'Z'
        {
            all.insert(pid, parent);
        }
    }
    all
}

/// The state as a letter, and the parent.
pub fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; the fields follow the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether it lives (a zombie does not).
pub fn lives(pid: i32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Everything below `pid`, itself not included.
pub fn below(pid: i32) -> Vec<i32> {
    let all = parents();
    let (mut found, mut at) = (Vec::new(), 0);
    let children = |p: i32| all.iter().filter(move |(_, parent)| **parent == p).map(|(c, _)| *c);
    found.extend(children(pid));
    while let Some(next) = found.get(at).copied() {
        found.extend(children(next));
        at += 1;
    }
    found
}

/// Direct children.
pub fn children(pid: i32) -> Vec<i32> {
    parents().into_iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| child).collect()
}

/// The title, as `ps` shows it.
pub fn title(pid: i32) -> String {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ").trim_end().to_owned()
}

/// One variable of a process's environment.
pub fn variable(pid: i32, name: &str) -> Option<String> {
    let raw = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let wanted = format!("{name}=");
    raw.split(|b| *b == 0)
        .filter_map(|v| std::str::from_utf8(v).ok())
        .find_map(|v| v.strip_prefix(&wanted).map(str::to_owned))
}

/// Living processes whose environment names an attempt of one of these messages.
pub fn of_messages(ids: &BTreeSet<String>) -> Vec<(i32, String)> {
    parents()
        .into_keys()
        .filter_map(|pid| variable(pid, "TASKD_ID").filter(|id| ids.contains(id)).map(|id| (pid, id)))
        .filter(|(pid, _)| lives(*pid))
        .collect()
}

/// SIGKILL; a process that is gone is fine.
pub fn kill9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
}

/// Proportional share of memory, in bytes; `None` where /proc does not say (another user's process).
pub fn pss(pid: i32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find(|l| l.starts_with("Pss:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// CPU time of all threads, in nanoseconds (schedstat; /proc/PID/stat counts in ticks of 10 ms).
pub fn cpu_ns(pid: i32) -> u64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    threads
        .flatten()
        .filter_map(|t| std::fs::read_to_string(t.path().join("schedstat")).ok())
        .filter_map(|s| s.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}
