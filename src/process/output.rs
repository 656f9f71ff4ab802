//! What a program prints, taken off its pipes in fixed buffers: cut into lines, and the part of it that is
//! kept (the head for the result, the tail for a failure).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

/// Bytes read at once, and all that is ever held of a line.
const BUFFER: usize = 64 << 10;

/// Longest piece of a line that is passed on.
pub const CUT: usize = 48 << 10;

/// A tail keeps at most this much.
const TAIL: usize = 64 << 10;

/// How much of a tail is told: whole lines up to this, one longer line up to [`TAIL`].
const TAIL_LINES: usize = 4 << 10;

/// A line, or a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its bytes, without the newline.
    pub bytes: &'a [u8],
    /// It goes on in the next one.
    pub cut: bool,
}

/// One stream of a program. Its buffer outlives the attempts.
#[derive(Debug)]
pub struct Channel {
    pipe: Option<OwnedFd>,
    buffer: Vec<u8>,
    /// Bytes of a line whose end has not come, at the front of the buffer.
    held: usize,
    /// The held bytes continue a line that was cut.
    continues: bool,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes.
    Some,
    /// Nothing now.
    Empty,
    /// The end, now or before.
    Closed,
}

impl Default for Channel {
    fn default() -> Self {
        Self { pipe: None, buffer: vec![0; BUFFER], held: 0, continues: false }
    }
}

impl Channel {
    /// Begins a stream.
    pub fn open(&mut self, pipe: Option<OwnedFd>) {
        self.pipe = pipe;
        self.held = 0;
        self.continues = false;
    }

    /// The pipe, as long as it is open.
    #[must_use]
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads once, at most 64 KiB, without waiting. `raw` gets the bytes as they come, `line` every line
    /// that is complete or too long; at the end of the stream also the last one without a newline.
    pub fn read(&mut self, raw: impl FnOnce(&[u8]), mut line: impl FnMut(Line<'_>)) -> Read {
        let Some(pipe) = &self.pipe else { return Read::Closed };
        let room = self.buffer.get_mut(self.held..).unwrap_or_default();
        let n = match nix::unistd::read(pipe, room) {
            Ok(0) => {
                self.finish(line);
                return Read::Closed;
            }
            Ok(n) => n,
            Err(Errno::EAGAIN | Errno::EINTR) => return Read::Empty,
            // Nothing but a broken kernel or descriptor: there is nothing more to come.
            Err(_) => {
                self.finish(line);
                return Read::Closed;
            }
        };
        let end = self.held + n;
        let fresh = self.buffer.get(self.held..end).unwrap_or_default();
        raw(fresh);
        let mut start = 0;
        let mut search = self.held;
        while let Some(at) = self.buffer.get(search..end).and_then(newline) {
            let bytes = self.buffer.get(start..search + at).unwrap_or_default();
            pieces(bytes, &mut line);
            self.continues = false;
            start = search + at + 1;
            search = start;
        }
        while end - start >= CUT {
            let bytes = self.buffer.get(start..end).unwrap_or_default();
            let at = piece(bytes);
            line(Line { bytes: bytes.get(..at).unwrap_or_default(), cut: true });
            self.continues = true;
            start += at;
        }
        self.buffer.copy_within(start..end, 0);
        self.held = end - start;
        Read::Some
    }

    /// Passes on what is held as a line, though its newline has not come, and goes on.
    pub fn cut_here(&mut self, line: impl FnMut(Line<'_>)) {
        let pipe = self.pipe.take();
        self.finish(line);
        self.pipe = pipe;
    }

    /// Ends the stream: what is held is the last line.
    pub fn finish(&mut self, mut line: impl FnMut(Line<'_>)) {
        self.pipe = None;
        if self.held > 0 || self.continues {
            line(Line { bytes: self.buffer.get(..self.held).unwrap_or_default(), cut: false });
        }
        self.held = 0;
        self.continues = false;
    }
}

/// Where the first newline is. `contains` is the standard library's fast byte search.
fn newline(bytes: &[u8]) -> Option<usize> {
    const STEP: usize = 512;
    bytes.chunks(STEP).position(|c| c.contains(&b'\n')).and_then(|chunk| {
        let from = chunk * STEP;
        bytes.get(from..)?.iter().position(|b| *b == b'\n').map(|at| from + at)
    })
}

fn pieces(mut bytes: &[u8], line: &mut impl FnMut(Line<'_>)) {
    while bytes.len() > CUT {
        let (head, rest) = bytes.split_at(piece(bytes));
        line(Line { bytes: head, cut: true });
        bytes = rest;
    }
    line(Line { bytes, cut: false });
}

/// Length of the next piece: [`CUT`], or up to three bytes less where that would cut a character.
fn piece(bytes: &[u8]) -> usize {
    let is_inside = |at: usize| bytes.get(at).is_some_and(|b| b & 0xC0 == 0x80);
    (CUT - 3..=CUT).rev().find(|at| !is_inside(*at)).unwrap_or(CUT)
}

/// The beginning of a stream without the white space around it, for the result.
#[derive(Debug, Default)]
pub struct Head {
    bytes: Vec<u8>,
    limit: usize,
    truncated: bool,
}

impl Head {
    /// Keeps up to `limit` bytes from now on; zero: nothing.
    pub fn open(&mut self, limit: usize) {
        self.bytes = Vec::new();
        self.limit = limit;
        self.truncated = false;
    }

    /// The next bytes of the stream.
    pub fn push(&mut self, fresh: &[u8]) {
        let fresh = if self.bytes.is_empty() { fresh.trim_ascii_start() } else { fresh };
        let room = self.limit.saturating_sub(self.bytes.len());
        let (kept, lost) = fresh.split_at(room.min(fresh.len()));
        self.bytes.extend_from_slice(kept);
        // White space behind the bound is what trimming would have taken.
        self.truncated |= !self.truncated && !lost.trim_ascii().is_empty();
    }

    /// The bytes, and whether there were more.
    #[must_use]
    pub fn take(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(bytes.trim_ascii_end().len());
        if self.truncated {
            bytes.truncate(whole_characters(&bytes));
        }
        (bytes, self.truncated)
    }
}

/// Length without a character that was cut at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() => e.valid_up_to(),
        _ => bytes.len(),
    }
}

/// The end of a stream, for a failure.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    /// Begins anew.
    pub fn open(&mut self) {
        self.bytes.clear();
    }

    /// The next bytes of the stream.
    pub fn push(&mut self, fresh: &[u8]) {
        self.bytes.extend_from_slice(fresh);
        // Moved only when as much again has come: each byte is moved at most once.
        if self.bytes.len() > 2 * TAIL {
            self.bytes.drain(..self.bytes.len() - TAIL);
        }
    }

    /// The last lines: as many as fit in 4 KiB, at least one, that one cut to its last 64 KiB.
    #[must_use]
    pub fn text(&self) -> String {
        let bytes = self.bytes.trim_ascii_end();
        let bytes = bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default();
        let mut start = bytes.len();
        for (i, line) in bytes.rsplit(|b| *b == b'\n').enumerate() {
            let from = start.saturating_sub(line.len() + usize::from(i > 0));
            if i > 0 && bytes.len() - from > TAIL_LINES {
                break;
            }
            start = from;
        }
        String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::fcntl::OFlag;
    use proptest::prelude::*;

    use super::*;

    /// Feeds `chunks` through a pipe, reading after each; returns the lines.
    fn lines(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK).unwrap();
        let mut write = std::fs::File::from(write);
        let mut channel = Channel::default();
        channel.open(Some(read));
        let mut got = Vec::new();
        for chunk in chunks.iter().flat_map(|c| c.chunks(32 << 10)) {
            write.write_all(chunk).unwrap();
            assert_eq!(channel.read(|_| {}, |l| got.push((l.bytes.to_vec(), l.cut))), Read::Some);
            while channel.read(|_| {}, |l| got.push((l.bytes.to_vec(), l.cut))) == Read::Some {}
        }
        drop(write);
        assert_eq!(channel.read(|_| {}, |l| got.push((l.bytes.to_vec(), l.cut))), Read::Closed);
        assert!(channel.pipe().is_none());
        got
    }

    #[test]
    fn lines_are_whole_over_reads_and_the_last_needs_no_newline() {
        let line = |s: &str| (s.as_bytes().to_vec(), false);
        assert_eq!(lines(&[b"a\nb", b"c\n\nd"]), [line("a"), line("bc"), line(""), line("d")]);
        assert_eq!(lines(&[b"a\n"]), [line("a")]);
        assert_eq!(lines(&[]), []);
    }

    #[test]
    fn a_long_line_is_cut_and_marked_between_characters() {
        let text = "é".repeat(40_000);
        let got = lines(&[b"x", text.as_bytes(), b"\nnext\n"]);
        assert!(got.iter().all(|(bytes, _)| bytes.len() <= CUT && std::str::from_utf8(bytes).is_ok()));
        assert_eq!(got.iter().map(|(_, cut)| *cut).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(got[..2].concat_bytes(), format!("x{text}").into_bytes());
        assert_eq!(got[2].0, b"next");
    }

    trait ConcatBytes {
        fn concat_bytes(&self) -> Vec<u8>;
    }

    impl ConcatBytes for [(Vec<u8>, bool)] {
        fn concat_bytes(&self) -> Vec<u8> {
            self.iter().flat_map(|(b, _)| b.clone()).collect()
        }
    }

    proptest! {
        /// However the bytes arrive, the lines put together are the stream.
        #[test]
        fn nothing_is_lost_or_added(
            chunks in proptest::collection::vec(
                (0_u8..4, 0_usize..60_000, any::<bool>()).prop_map(|(b, n, end)| {
                    let mut bytes = vec![b'a' + b; n];
                    if end {
                        bytes.push(b'\n');
                    }
                    bytes
                }),
                0..8,
            ),
        ) {
            let whole: Vec<u8> = chunks.concat();
            let refs: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).filter(|c| !c.is_empty()).collect();
            let mut back = Vec::new();
            for (bytes, cut) in lines(&refs) {
                prop_assert!(bytes.len() <= CUT);
                back.extend_from_slice(&bytes);
                if !cut {
                    back.push(b'\n');
                }
            }
            if !whole.ends_with(b"\n") && !whole.is_empty() {
                prop_assert_eq!(back.pop(), Some(b'\n'));
            }
            prop_assert_eq!(back, whole);
        }
    }

    #[test]
    fn the_head_is_trimmed_and_bounded() {
        let take = |limit, chunks: &[&str]| {
            let mut head = Head::default();
            head.open(limit);
            chunks.iter().for_each(|c| head.push(c.as_bytes()));
            let (bytes, cut) = head.take();
            (String::from_utf8(bytes).unwrap(), cut)
        };
        assert_eq!(take(10, &[" \n", "a b", "\n\n"]), ("a b".into(), false));
        assert_eq!(take(3, &["abc", " \n"]), ("abc".into(), false));
        assert_eq!(take(3, &["abc", " \n", "d"]), ("abc".into(), true));
        assert_eq!(take(3, &["aéé"]), ("aé".into(), true));
        assert_eq!(take(2, &["aéé"]), ("a".into(), true));
        assert_eq!(take(0, &["x"]), (String::new(), true));
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let mut tail = Tail::default();
        for i in 0..100_000 {
            tail.push(format!("line {i}\n").as_bytes());
        }
        let text = tail.text();
        assert!(text.len() <= TAIL_LINES && text.len() > TAIL_LINES - 20, "{}", text.len());
        assert!(text.starts_with("line ") && text.ends_with("line 99999"));
        tail.open();
        tail.push(b"first\n");
        tail.push(&[b'x'; 10_000]);
        assert_eq!(tail.text().len(), 10_000);
        tail.push(&[b'x'; 200_000]);
        assert_eq!(tail.text().len(), TAIL);
        tail.open();
        assert_eq!(tail.text(), "");
        tail.push(b"one\ntwo\n\n");
        assert_eq!(tail.text(), "one\ntwo");
    }
}
