//! Waiting for a message and printing its output meanwhile, over restarts of the daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use tokio::time::{Instant, sleep};

use crate::control::api::{ErrorKind, LogLine, MessageView};
use crate::control::client::{Client, ClientError, Lines};
use crate::control::route::Method;

use super::output::{self, Failure};
use super::parse;

/// How long one request for a result waits; less than what the daemon allows.
const POLL: Duration = Duration::from_secs(20);

/// Bears a daemon that is being replaced, for as long as an answer may take.
pub(super) struct Patience {
    bound: Duration,
    since: Option<Instant>,
}

impl Patience {
    pub(super) const fn new(bound: Duration) -> Self {
        Self { bound, since: None }
    }

    /// It answers.
    const fn good(&mut self) {
        self.since = None;
    }

    /// Waits a little after an error that passes; gives the others back.
    pub(super) async fn bear(&mut self, e: ClientError) -> Result<(), ClientError> {
        let passes = match &e {
            ClientError::Broken(_)
            | ClientError::NoSocket(_)
            | ClientError::NotListening(_)
            | ClientError::Connect { .. } => true,
            ClientError::Api(error) => {
                matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Stopping)
            }
            _ => false,
        };
        if !passes || self.since.get_or_insert_with(Instant::now).elapsed() >= self.bound {
            return Err(e);
        }
        sleep(Duration::from_millis(100)).await;
        Ok(())
    }
}

/// Waits until the message is final: its JSON, and what it says.
///
/// # Errors
/// What taskd or the connection says, once it is not about to pass.
pub async fn until_final(client: &mut Client, id: &str) -> Result<(Bytes, MessageView), Failure> {
    let path = format!("/v1/messages/{id}/result?wait_ms={}", POLL.as_millis());
    let mut patience = Patience::new(client.timeout());
    loop {
        match client.text(Method::Get, &path, None, true, POLL).await {
            Ok(answer) => {
                patience.good();
                let view: MessageView = parse(&answer)?;
                if view.state.is_final() {
                    return Ok((answer, view));
                }
            }
            Err(e) => patience.bear(e).await?,
        }
    }
}

/// Where lines of output go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// stdout to stdout, stderr to stderr.
    Both,
    /// Everything to stdout.
    Stdout,
    /// The API's JSON lines to stdout.
    Json,
}

/// How far the output has been printed, so that a stream that begins anew goes on where it broke off. Lines
/// are counted per attempt: their times may be equal, and go back with the clock.
#[derive(Debug, Default)]
struct Printed {
    attempts: BTreeMap<u32, AttemptLines>,
}

/// Lines of one attempt.
#[derive(Debug, Default)]
struct AttemptLines {
    /// Printed over all streams.
    shown: usize,
    /// Seen in the present stream.
    seen: usize,
    /// Time of the latest printed line, and how many at the end of what was printed have it.
    last: (i64, usize),
    /// The present stream, while it repeats, leaves out more than was left out before: counting does not
    /// tell any more what is known, so times do, with how many lines of `last` were met.
    gap: Option<usize>,
}

impl Printed {
    /// A stream begins.
    fn begin(&mut self) {
        for attempt in self.attempts.values_mut() {
            (attempt.seen, attempt.gap) = (0, None);
        }
    }

    /// Whether this line has not been printed yet; notes that it is.
    fn is_new(&mut self, line: &LogLine) -> bool {
        self.attempts.entry(line.attempt).or_default().is_new(line)
    }
}

impl AttemptLines {
    fn is_new(&mut self, line: &LogLine) -> bool {
        self.seen += 1;
        if self.seen <= self.shown {
            if let Some(met) = &mut self.gap {
                let (at, count) = self.last;
                if line.at == at {
                    *met += 1;
                }
                if line.at < at || (line.at == at && *met <= count) {
                    return false;
                }
                // From here on everything is new.
                self.seen = self.shown + 1;
            } else {
                if line.stream == "taskd" {
                    self.gap = Some(0);
                }
                return false;
            }
        }
        self.shown = self.seen;
        self.last = if line.at == self.last.0 { (line.at, self.last.1 + 1) } else { (line.at, 1) };
        true
    }
}

/// Prints the output of a message; with `follow` until it is final.
///
/// # Errors
/// What taskd or the connection says, once it is not about to pass; the output cannot be written.
pub async fn print(client: &mut Client, id: &str, follow: bool, to: To) -> Result<(), Failure> {
    let path = format!("/v1/messages/{id}/logs?follow={follow}");
    let mut patience = Patience::new(client.timeout());
    let mut printed = Printed::default();
    let mut attempt = None;
    loop {
        printed.begin();
        let broken = match client.lines(&path).await {
            Ok(mut lines) => loop {
                match next(&mut lines).await {
                    Ok(None) => return Ok(()),
                    Ok(Some((text, line))) => {
                        patience.good();
                        if printed.is_new(&line) {
                            if to == To::Stdout && attempt.is_some_and(|a| a != line.attempt) {
                                output::note(format_args!("attempt {}", line.attempt));
                            }
                            attempt = Some(line.attempt);
                            put(&text, &line, to)?;
                        }
                    }
                    Err(e) => break e,
                }
            },
            Err(e) => e,
        };
        if !follow {
            return Err(broken.into());
        }
        patience.bear(broken).await?;
    }
}

async fn next(lines: &mut Lines) -> Result<Option<(String, LogLine)>, ClientError> {
    let Some(text) = lines.next().await? else { return Ok(None) };
    let line = serde_json::from_str(&text).map_err(|e| ClientError::Strange(e.to_string()))?;
    Ok(Some((text, line)))
}

fn put(text: &str, line: &LogLine, to: To) -> Result<(), Failure> {
    if to == To::Json {
        return output::json(text.as_bytes());
    }
    if line.stream == "taskd" {
        output::note(output::clean(&line.line));
        return Ok(());
    }
    let mut bytes = match &line.data {
        Some(data) => STANDARD
            .decode(data)
            .map_err(|e| ClientError::Strange(format!("a line of output is not base64: {e}")))?,
        None => line.line.clone().into_bytes(),
    };
    if !line.cut {
        bytes.push(b'\n');
    }
    output::bytes(to == To::Both && line.stream == "stderr", &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(attempt: u32, at: i64) -> LogLine {
        LogLine { attempt, at, stream: "stdout".into(), line: String::new(), data: None, cut: false }
    }

    #[test]
    fn a_stream_that_begins_anew_repeats_nothing_and_leaves_nothing_out() {
        // Times go back with the clock; they are no reason to leave a line out.
        let all = [(1, 5), (1, 5), (1, 6), (1, 6), (1, 0), (1, 6), (2, 4), (2, 9), (2, 9), (2, 3)];
        for broken_at in 0..=all.len() {
            let mut printed = Printed::default();
            let mut seen = Vec::new();
            for upto in [broken_at, all.len()] {
                printed.begin();
                for at in &all[..upto] {
                    if printed.is_new(&line(at.0, at.1)) {
                        seen.push(*at);
                    }
                }
            }
            assert_eq!(seen, all, "broken at {broken_at}");
        }
    }

    #[test]
    fn a_gap_is_told_and_what_follows_it_is_told_once() {
        let gap = LogLine { stream: "taskd".into(), ..line(1, 2) };
        let first = [line(1, 1), line(1, 2), gap.clone(), line(1, 8), line(1, 9), line(1, 9)];
        let mut printed = Printed::default();
        printed.begin();
        assert!(first.iter().all(|l| printed.is_new(l)), "a line is left out while nothing is repeated");
        // Meanwhile the tail moved on: the second stream has fewer known lines than were printed.
        let second = [line(1, 1), line(1, 2), gap, line(1, 9), line(1, 9), line(1, 9), line(1, 7)];
        printed.begin();
        let new: Vec<bool> = second.iter().map(|l| printed.is_new(l)).collect();
        assert_eq!(new, [false, false, false, false, false, true, true]);
    }
}
