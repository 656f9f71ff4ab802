//! The output spool: head and tail of each attempt's output in `state_dir/output/`, newline-delimited JSON
//! ([`LogLine`]) in numbered segments. A thread of its own writes, so that a slow disk stops no task; what
//! it cannot keep up with is dropped and counted.
//!
//! Segment 0 is the head (half of the bound), later ones hold a quarter each; of those only the latest two
//! are kept. File names are hashes: an id never becomes a path.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::control::api::LogLine;

/// Batches on their way to the thread.
const QUEUE: usize = 256;

/// All attempts' output together; the oldest goes first.
const TOTAL: u64 = 1 << 30;

/// What the thread is told.
enum Order {
    Append { name: String, text: Vec<u8> },
    Close { name: String },
    Keep { name: String, longer: Duration },
    Collect { older_than: Duration },
    Sync { done: SyncSender<()> },
}

/// The spool.
pub struct Spool {
    dir: PathBuf,
    orders: SyncSender<Order>,
    /// Raised after each append; followers wait for it.
    grew: watch::Receiver<u64>,
    /// Bytes dropped because the thread was behind.
    dropped: Arc<AtomicU64>,
}

impl Spool {
    /// Opens (and makes) `dir`; `bound` is the bytes kept of one attempt.
    ///
    /// # Errors
    /// When the directory cannot be made or the thread cannot be started.
    pub fn open(dir: &Path, bound: u64) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let (orders, received) = sync_channel(QUEUE);
        let (grow, grew) = watch::channel(0);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer =
            Writer { dir: dir.to_owned(), bound, open: BTreeMap::new(), lost: Arc::clone(&dropped), grow };
        std::thread::Builder::new().name("taskd-spool".into()).stack_size(128 << 10).spawn(move || {
            writer.run(&received);
        })?;
        Ok(Self { dir: dir.to_owned(), orders, grew, dropped })
    }

    /// Appends lines of one attempt; never waits.
    pub fn append(&self, id: &str, attempt: u32, lines: &[LogLine]) {
        let mut text = Vec::with_capacity(lines.len() * 128);
        for line in lines {
            if serde_json::to_writer(&mut text, line).is_ok() {
                text.push(b'\n');
            }
        }
        let size = text.len() as u64;
        if self.orders.try_send(Order::Append { name: name(id, attempt), text }).is_err() {
            self.dropped.fetch_add(size, Ordering::Relaxed);
        }
    }

    /// The attempt is over: its file can be closed.
    pub fn close(&self, id: &str, attempt: u32) {
        let _ = self.orders.try_send(Order::Close { name: name(id, attempt) });
    }

    /// Output of this attempt is kept for longer than the rest by this much (its message is a dead letter).
    pub fn keep(&self, id: &str, attempt: u32, longer: Duration) {
        let _ = self.orders.try_send(Order::Keep { name: name(id, attempt), longer });
    }

    /// Deletes what is older than `older_than` or beyond the total bound, oldest first.
    pub fn collect(&self, older_than: Duration) {
        let _ = self.orders.try_send(Order::Collect { older_than });
    }

    /// Waits until everything appended so far is written; for the end of the daemon.
    pub fn sync(&self) {
        let (done, waited) = sync_channel(1);
        if self.orders.send(Order::Sync { done }).is_ok() {
            let _ = waited.recv_timeout(Duration::from_secs(5));
        }
    }

    /// The last lines of one attempt, at most so many and so many bytes of text. What is still on its way to the
    /// disk is waited for at most `patience`, and left out then.
    #[must_use]
    pub fn tail(&self, id: &str, attempt: u32, bound: (usize, usize), patience: Duration) -> Vec<LogLine> {
        let (most, bytes) = bound;
        let (done, waited) = sync_channel(1);
        if most > 0 && self.orders.try_send(Order::Sync { done }).is_ok() {
            let _ = waited.recv_timeout(patience);
        }
        let name = name(id, attempt);
        let (mut room, mut found) = (bytes, Vec::new());
        for segment in segments(&self.dir, &name).into_iter().rev() {
            for line in last_lines(&segment_path(&self.dir, &name, segment)).into_iter().rev() {
                if found.len() == most || line.line.len() >= room {
                    found.reverse();
                    return found;
                }
                room -= line.line.len() + 1;
                found.push(line);
            }
        }
        found.reverse();
        found
    }

    /// Bytes dropped because the disk was slower than the output.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A reader of all attempts of a message, from the first.
    #[must_use]
    pub fn reader(&self, id: &str) -> Reader {
        Reader {
            dir: self.dir.clone(),
            id: id.to_owned(),
            attempt: 1,
            segment: 0,
            offset: 0,
            rest: Vec::new(),
            last_at: 0,
        }
    }

    /// Resolves `changed()` after anything was appended.
    #[must_use]
    pub fn grew(&self) -> watch::Receiver<u64> {
        self.grew.clone()
    }
}

fn name(id: &str, attempt: u32) -> String {
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, id.as_bytes());
    format!("{}.{attempt}", hash.simple())
}

fn segment_path(dir: &Path, name: &str, segment: u32) -> PathBuf {
    dir.join(name.get(..2).unwrap_or("00")).join(format!("{name}.{segment}"))
}

/// The lines at the end of a file, as far as its last 64 KiB hold them whole.
fn last_lines(path: &Path) -> Vec<LogLine> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(64 << 10);
        file.seek(SeekFrom::Start(from))?;
        let mut text = Vec::new();
        file.take(64 << 10).read_to_end(&mut text)?;
        Ok(text)
    };
    // The first one may be cut: then it is no JSON.
    let text = read().unwrap_or_default();
    text.split(|c| *c == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

struct Open {
    file: File,
    segment: u32,
    size: u64,
}

struct Writer {
    dir: PathBuf,
    bound: u64,
    open: BTreeMap<String, Open>,
    lost: Arc<AtomicU64>,
    grow: watch::Sender<u64>,
}

impl Writer {
    fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Append { name, text } => {
                    if self.append(&name, &text).is_err() {
                        // A full disk costs output, never a task; the file is tried anew next time.
                        self.open.remove(&name);
                        self.lost.fetch_add(text.len() as u64, Ordering::Relaxed);
                    }
                }
                Order::Close { name } => {
                    self.open.remove(&name);
                }
                Order::Keep { name, longer } => {
                    self.open.remove(&name);
                    keep(&self.dir, &name, longer);
                }
                Order::Collect { older_than } => collect(&self.dir, older_than),
                Order::Sync { done } => {
                    let _ = done.send(());
                }
            }
            self.grow.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    fn append(&mut self, name: &str, text: &[u8]) -> io::Result<()> {
        if !self.open.contains_key(name) {
            // A replaced daemon goes on where the one before it stopped.
            let segment = segments(&self.dir, name).last().copied().unwrap_or(0);
            let path = segment_path(&self.dir, name, segment);
            if let Some(shard) = path.parent() {
                fs::create_dir_all(shard)?;
            }
            let file = create(&path)?;
            let size = file.metadata()?.len();
            self.open.insert(name.to_owned(), Open { file, segment, size });
        }
        let Some(open) = self.open.get_mut(name) else { return Ok(()) };
        let room = if open.segment == 0 { self.bound / 2 } else { self.bound / 4 };
        if open.size > 0 && open.size + text.len() as u64 > room {
            open.segment += 1;
            open.file = create(&segment_path(&self.dir, name, open.segment))?;
            open.size = 0;
            if open.segment > 2 {
                let _ = fs::remove_file(segment_path(&self.dir, name, open.segment - 2));
            }
        }
        open.file.write_all(text)?;
        open.size += text.len() as u64;
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Every segment there is of an attempt, in order. Segments between the head and the latest two are deleted
/// as the tail moves on, so the shard's directory is asked; one shard holds 1/256 of all files.
fn segments(dir: &Path, name: &str) -> Vec<u32> {
    let shard = segment_path(dir, name, 0);
    let (Some(shard), true) = (shard.parent(), shard.exists()) else { return Vec::new() };
    let Ok(entries) = fs::read_dir(shard) else { return vec![0] };
    let number = |e: fs::DirEntry| -> Option<u32> {
        e.file_name().to_str()?.strip_prefix(name)?.strip_prefix('.')?.parse().ok()
    };
    let mut found: Vec<u32> = entries.flatten().filter_map(number).collect();
    found.sort_unstable();
    found
}

/// Age is told by the time of the last change, so a later one makes a file younger. A file that cannot be changed goes
/// with the others.
fn keep(dir: &Path, name: &str, longer: Duration) {
    for segment in segments(dir, name) {
        let file = File::options().append(true).open(segment_path(dir, name, segment));
        let _ = file.and_then(|file| file.set_modified(SystemTime::now() + longer));
    }
}

fn collect(dir: &Path, older_than: Duration) {
    let Ok(shards) = fs::read_dir(dir) else { return };
    let now = SystemTime::now();
    let mut files: Vec<(SystemTime, u64, PathBuf)> = shards
        .flatten()
        .filter_map(|shard| fs::read_dir(shard.path()).ok())
        .flat_map(Iterator::flatten)
        .filter_map(|e| {
            let m = e.metadata().ok()?;
            Some((m.modified().ok()?, m.len(), e.path()))
        })
        .collect();
    files.sort();
    let mut total: u64 = files.iter().map(|f| f.1).sum();
    for (modified, size, path) in files {
        let old = now.duration_since(modified).is_ok_and(|age| age > older_than);
        if !old && total <= TOTAL {
            break;
        }
        if fs::remove_file(&path).is_ok() {
            total = total.saturating_sub(size);
        }
    }
}

/// Reads a message's output over all its attempts; each call of [`Reader::piece`] gives what is new.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    id: String,
    attempt: u32,
    segment: u32,
    offset: u64,
    rest: Vec<u8>,
    /// Time of the latest line that was read.
    last_at: i64,
}

impl Reader {
    /// Up to 64 KiB of whole lines (each ends in a newline); empty: nothing new for now.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn piece(&mut self) -> io::Result<String> {
        loop {
            let name = name(&self.id, self.attempt);
            match File::open(segment_path(&self.dir, &name, self.segment)) {
                Ok(mut file) => {
                    file.seek(SeekFrom::Start(self.offset))?;
                    let got = file.take(64 << 10).read_to_end(&mut self.rest)?;
                    self.offset += got as u64;
                    if let Some(end) = self.rest.iter().rposition(|c| *c == b'\n') {
                        let tail = self.rest.split_off(end + 1);
                        let lines = std::mem::replace(&mut self.rest, tail);
                        self.note_time(&lines);
                        return Ok(String::from_utf8_lossy(&lines).into_owned());
                    }
                    if got > 0 {
                        continue;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
            let next = segments(&self.dir, &name).into_iter().find(|s| *s > self.segment);
            if let Some(next) = next {
                let gap = next > self.segment + 1;
                self.to(self.attempt, next);
                if gap {
                    return Ok(self.gap());
                }
            } else if let Some(later) = self.later_attempt() {
                self.to(later, 0);
            } else {
                return Ok(String::new());
            }
        }
    }

    fn to(&mut self, attempt: u32, segment: u32) {
        (self.attempt, self.segment, self.offset) = (attempt, segment, 0);
        self.rest.clear();
    }

    /// Remembers the time of the last of these lines.
    fn note_time(&mut self, lines: &[u8]) {
        let last = lines.trim_ascii_end().rsplit(|c| *c == b'\n').next();
        if let Some(line) = last.and_then(|text| serde_json::from_slice::<LogLine>(text).ok()) {
            self.last_at = line.at;
        }
    }

    /// An attempt without output has no file: look some attempts ahead.
    fn later_attempt(&self) -> Option<u32> {
        (1..=64).map(|d| self.attempt + d).find(|a| segment_path(&self.dir, &name(&self.id, *a), 0).exists())
    }

    fn gap(&self) -> String {
        let line = LogLine {
            attempt: self.attempt,
            // Of the last line before it: nobody knows when the first one that is missing was printed.
            at: self.last_at,
            stream: "taskd".into(),
            line: "… output beyond the bound was dropped here (results.output_max_size) …".into(),
            data: None,
            cut: false,
        };
        serde_json::to_string(&line).map_or_else(|_| String::new(), |text| text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u32) -> LogLine {
        LogLine {
            attempt: 1,
            at: 7,
            stream: "stdout".into(),
            line: format!("line {n}"),
            data: None,
            cut: false,
        }
    }

    fn all(spool: &Spool, id: &str) -> Vec<LogLine> {
        let mut reader = spool.reader(id);
        let mut lines = Vec::new();
        loop {
            let text = reader.piece().unwrap();
            if text.is_empty() {
                return lines;
            }
            lines.extend(text.lines().map(|l| serde_json::from_str::<LogLine>(l).unwrap()));
        }
    }

    #[test]
    fn head_and_tail_are_kept_within_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&dir.path().join("output"), 8 << 10).unwrap();
        for n in 0..2000 {
            spool.append("id", 1, &[line(n)]);
            if n % 64 == 63 {
                spool.sync();
            }
        }
        spool.sync();
        let lines = all(&spool, "id");
        assert_eq!(spool.dropped(), 0);
        assert_eq!(lines.first().unwrap().line, "line 0");
        assert_eq!(lines.last().unwrap().line, "line 1999");
        assert_eq!(lines.iter().filter(|l| l.stream == "taskd").count(), 1, "the gap is not marked once");
        assert!(lines.iter().all(|l| l.at == 7), "the gap has no time");
        let size: u64 = fs::read_dir(dir.path().join("output"))
            .unwrap()
            .flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap())
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert!(size <= 8 << 10, "{size} bytes are kept");
    }

    #[test]
    fn the_last_lines_are_found_over_segments_and_within_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&dir.path().join("output"), 8 << 10).unwrap();
        for n in 0..300 {
            spool.append("id", 1, &[line(n)]);
            if n % 64 == 63 {
                spool.sync();
            }
        }
        spool.append("id", 2, &[line(1_000)]);
        let tail = |attempt, most, bytes| -> Vec<String> {
            let lines = spool.tail("id", attempt, (most, bytes), Duration::from_secs(5));
            lines.into_iter().map(|l| l.line).collect()
        };
        assert_eq!(tail(1, 3, 1_000), ["line 297", "line 298", "line 299"]);
        assert_eq!(tail(1, 3, 20), ["line 298", "line 299"]);
        assert_eq!(tail(1, 40, 1 << 20).len(), 40);
        assert_eq!(tail(2, 50, 1_000), ["line 1000"]);
        assert!(tail(3, 50, 1_000).is_empty() && tail(1, 0, 1_000).is_empty());
    }

    #[test]
    fn attempts_without_output_are_stepped_over() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), 1 << 20).unwrap();
        spool.append("id", 3, &[line(1)]);
        spool.sync();
        assert_eq!(all(&spool, "id").len(), 1);
        assert!(all(&spool, "other").is_empty());
    }

    #[test]
    fn ids_do_not_become_paths() {
        assert!(!name("../../etc/passwd", 1).contains('/'));
    }
}
