//! Newline-delimited JSON from a file or stdin, in requests of a bounded size.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use serde::de::DeserializeOwned;

use super::output::Failure;
use crate::control::route::check_json;

/// Longest line, in bytes: a message and its envelope.
const LINE: usize = crate::control::route::SINGLE;
/// Most lines and bytes of one request.
const LINES: usize = 1000;
const BYTES: usize = 4 << 20;

/// Where lines come from.
pub struct Source {
    name: String,
    reader: BufReader<Box<dyn Read>>,
    line: usize,
}

/// Lines for one request.
#[derive(Debug, PartialEq)]
pub struct Batch<T> {
    /// Number of the first line, from 1.
    pub first: usize,
    /// Number of the last line.
    pub last: usize,
    /// What they say.
    pub items: Vec<T>,
}

impl Source {
    /// Opens a file, or stdin for `-`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(name: &str) -> Result<Self, Failure> {
        let reader: Box<dyn Read> = if name == "-" {
            Box::new(io::stdin())
        } else {
            let file = File::open(name).map_err(|e| Failure::no_input(format!("cannot read {name}: {e}")))?;
            Box::new(file)
        };
        let name = if name == "-" { "stdin".to_owned() } else { name.to_owned() };
        Ok(Self { name, reader: BufReader::with_capacity(1 << 20, reader), line: 0 })
    }

    /// The next lines: as many as a request takes, but none are waited for once there is one. Empty lines
    /// are skipped; none at the end.
    ///
    /// # Errors
    /// A line that is too long or no `T`, named by its number; the file cannot be read.
    pub fn batch<T: DeserializeOwned>(&mut self) -> Result<Option<Batch<T>>, Failure> {
        let mut batch = Batch { first: 0, last: 0, items: Vec::new() };
        let mut bytes = 0;
        let mut line = Vec::new();
        while batch.items.len() < LINES && bytes < BYTES {
            if !batch.items.is_empty() && !self.reader.buffer().contains(&b'\n') {
                break;
            }
            line.clear();
            let bound = LINE as u64 + 1;
            let n = self.reader.by_ref().take(bound).read_until(b'\n', &mut line);
            let n = n.map_err(|e| Failure::no_input(format!("cannot read {}: {e}", self.name)))?;
            if n == 0 {
                break;
            }
            self.line += 1;
            if line.len() > LINE {
                return Err(Failure::data(format!(
                    "{}, line {}: longer than {LINE} bytes",
                    self.name, self.line
                )));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let wrong = |why: String| Failure::data(format!("{}, line {}: {why}", self.name, self.line));
            check_json(&line).map_err(|e| wrong(e.message))?;
            let item = serde_json::from_slice(&line).map_err(|e| wrong(e.to_string()))?;
            if batch.items.is_empty() {
                batch.first = self.line;
            }
            batch.last = self.line;
            batch.items.push(item);
            bytes += n;
        }
        Ok(if batch.items.is_empty() { None } else { Some(batch) })
    }

    /// The name for messages, with the lines of a batch.
    #[must_use]
    pub fn place<T>(&self, batch: &Batch<T>) -> String {
        format!("{}, lines {} to {}", self.name, batch.first, batch.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn source(text: &[u8]) -> Source {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        Source::open(file.path().to_str().unwrap()).unwrap()
    }

    #[test]
    fn lines_come_in_bounded_batches() {
        let text: String = (1..=2500).map(|n| format!("{n}\n\n")).collect();
        let mut source = source(text.as_bytes());
        let mut seen = Vec::new();
        while let Some(batch) = source.batch::<u32>().unwrap() {
            assert!(batch.items.len() <= LINES && batch.first < batch.last);
            seen.extend(batch.items);
        }
        assert!(seen.into_iter().eq(1..=2500));
    }

    #[test]
    fn the_last_line_needs_no_newline_and_a_wrong_one_is_named() {
        assert_eq!(source(b"1").batch().unwrap(), Some(Batch { first: 1, last: 1, items: vec![1_u32] }));
        let Failure::Told { code, error } = source(b"1\n\nx\n").batch::<u32>().unwrap_err() else { panic!() };
        assert_eq!(code, 65);
        assert!(error.message.contains("line 3"), "{error}");
        let Failure::Told { code, error } =
            source(b"[1]\n[18446744073709551616]\n").batch::<serde_json::Value>().unwrap_err()
        else {
            panic!()
        };
        assert_eq!(code, 65);
        assert!(error.message.contains("line 2") && error.message.contains("64 bits"), "{error}");
        let long = vec![b' '; LINE + 2];
        assert!(source(&long).batch::<u32>().is_err());
    }

    #[test]
    fn a_line_that_is_there_does_not_wait_for_the_next() {
        let (read, mut write) = io::pipe().unwrap();
        let reader: Box<dyn Read> = Box::new(read);
        let mut source = Source { name: "pipe".into(), reader: BufReader::new(reader), line: 0 };
        write.write_all(b"1\n2\n3").unwrap();
        assert_eq!(source.batch::<u32>().unwrap().unwrap().items, [1, 2]);
        drop(write);
        assert_eq!(source.batch::<u32>().unwrap().unwrap().items, [3]);
    }
}
