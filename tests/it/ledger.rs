//! What the tasks of the kill test wrote down themselves, beside what taskd says of them.

use std::collections::BTreeMap;
use std::path::Path;

/// A task that notes its start and its end, with its message, attempt, process and the time in milliseconds.
/// `date` is a process of its own: a kill may hit between the two notes, as it may between any two steps.
pub const TASK: &str = r#"
[tasks.note]
command = '''
echo "start $TASKD_ID $TASKD_ATTEMPT $$ $(date +%s%3N)" >>{dir}/ledger
sleep 0.03
echo "end $TASKD_ID $TASKD_ATTEMPT $$ $(date +%s%3N)" >>{dir}/ledger
'''
"#;

/// One note.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `true` at the start, `false` at the end.
    pub start: bool,
    /// `TASKD_ATTEMPT`.
    pub attempt: u64,
    /// The task's process.
    pub pid: i32,
    /// Milliseconds since the epoch.
    pub at: i64,
}

/// Reads it: notes by message, in the order they were written. A torn last line is left out.
pub fn read(dir: &Path) -> BTreeMap<String, Vec<Entry>> {
    let text = std::fs::read_to_string(dir.join("ledger")).unwrap_or_default();
    let mut all: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [kind, id, attempt, pid, at] = words.as_slice() else { continue };
        let (Ok(attempt), Ok(pid), Ok(at)) = (attempt.parse(), pid.parse(), at.parse()) else { continue };
        all.entry((*id).to_owned()).or_default().push(Entry { start: *kind == "start", attempt, pid, at });
    }
    all
}
