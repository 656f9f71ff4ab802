//! From the thread that logs to the thread that writes: whole events, values copied, over a bounded queue.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};
use tracing::field::{Field, Value, Visit, display};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Most fields of one event that travel (tracing's macros allow as many).
const MAX_FIELDS: usize = 32;

/// Events that follow an unimportant one within this time are written with it: a burst costs one wake-up.
const GATHER: Duration = Duration::from_millis(4);

/// Where nobody takes the log, it is looked so often whether somebody does.
const AWAY: Duration = Duration::from_millis(200);

/// Events written at most before what was gathered of them goes out.
const LOT: usize = 64;

/// An event, values copied.
struct Entry {
    metadata: &'static Metadata<'static>,
    values: Vec<(Field, Owned)>,
}

/// A copied value.
enum Owned {
    Text(String),
    Debug(String),
    Int(i64),
    Uint(u64),
    Bool(bool),
    Float(f64),
}

/// What both sides share.
#[derive(Debug)]
pub(super) struct Relay {
    level: AtomicUsize,
    dropped: AtomicU64,
    /// Handed over and not yet written.
    waiting: Mutex<usize>,
    written: Condvar,
    queue: Mutex<Option<Receiver<Entry>>>,
}

/// The layer that threads log through.
pub(super) struct Front {
    relay: Arc<Relay>,
    sender: SyncSender<Entry>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.metadata.name())
    }
}

impl Relay {
    /// With room for so many waiting events. The front layer is to stand behind [`Relay::gate`].
    pub(super) fn new(room: usize, level: LevelFilter) -> (Arc<Self>, Front) {
        let (sender, receiver) = sync_channel(room);
        let relay = Arc::new(Self {
            level: AtomicUsize::new(rank(level)),
            dropped: AtomicU64::new(0),
            waiting: Mutex::new(0),
            written: Condvar::new(),
            queue: Mutex::new(Some(receiver)),
        });
        (Arc::clone(&relay), Front { relay, sender })
    }

    /// Starts the thread that writes through this subscriber while `there` says that somebody takes it, and calls
    /// `after` at the end of each burst. What comes while nobody is there waits, as far as there is room. It takes no signals: those are for the thread that waits for them.
    pub(super) fn start(
        self: &Arc<Self>,
        out: impl Subscriber + Send + Sync,
        there: impl Fn() -> bool + Send + 'static,
        after: impl Fn() + Send + 'static,
    ) -> Result<(), String> {
        let Some(queue) = lock(&self.queue).take() else { return Err("started twice".to_owned()) };
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(|e| e.to_string())?;
        let relay = Arc::clone(self);
        // Behind the same gate, or tracing would ask about each event below the level again and again.
        let out = Dispatch::new(out.with(self.gate()));
        let started = std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(256 << 10)
            .spawn(move || relay.write_all(&queue, &out, &there, &after));
        before.thread_set_mask().map_err(|e| e.to_string())?;
        started.map(drop).map_err(|e| format!("no thread for the log: {e}"))
    }

    /// The layer that keeps out what is below the level.
    pub(super) fn gate(self: &Arc<Self>) -> Gate {
        Gate(Arc::clone(self))
    }

    fn write_all(&self, queue: &Receiver<Entry>, out: &Dispatch, there: &dyn Fn() -> bool, after: &dyn Fn()) {
        let mut told = 0;
        while let Ok(first) = queue.recv() {
            // A warning may be the last word of a process that dies: it is not kept waiting.
            if *first.metadata.level() >= tracing::Level::INFO {
                std::thread::sleep(GATHER);
            }
            while !there() {
                std::thread::sleep(AWAY);
            }
            write(&first, out);
            let mut written = 1;
            while written < LOT
                && let Ok(entry) = queue.try_recv()
            {
                write(&entry, out);
                written += 1;
            }
            after();
            *lock(&self.waiting) -= written;
            self.written.notify_all();
            let dropped = self.dropped();
            if dropped > told {
                let lost = dropped - told;
                told = dropped;
                tracing::dispatcher::with_default(out, || {
                    tracing::warn!(TASKD_DROPPED = lost, "the log was not read fast enough, lines are lost");
                });
                after();
            }
        }
    }

    pub(super) fn set_level(&self, level: LevelFilter) {
        self.level.store(rank(level), Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn flush(&self, patience: Duration) {
        let waiting = lock(&self.waiting);
        // What is not written by then never will be; the process is about to end either way.
        let _ = self.written.wait_timeout_while(waiting, patience, |n| *n > 0);
    }

    fn level(&self) -> LevelFilter {
        match self.level.load(Ordering::Relaxed) {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        }
    }
}

fn rank(level: LevelFilter) -> usize {
    level.into_level().map_or(0, |l| match l {
        tracing::Level::ERROR => 1,
        tracing::Level::WARN => 2,
        tracing::Level::INFO => 3,
        tracing::Level::DEBUG => 4,
        tracing::Level::TRACE => 5,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets pass what is not below the level.
pub(super) struct Gate(Arc<Relay>);

impl<S: Subscriber> Layer<S> for Gate {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.level() <= &self.0.level() { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.level() <= &self.0.level()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.level())
    }
}

impl<S: Subscriber> Layer<S> for Front {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut copy = Copy { values: Vec::with_capacity(8) };
        event.record(&mut copy);
        let entry = Entry { metadata: event.metadata(), values: copy.values };
        *lock(&self.relay.waiting) += 1;
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.sender.try_send(entry) {
            *lock(&self.relay.waiting) -= 1;
            self.relay.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Copy {
    values: Vec<(Field, Owned)>,
}

impl Copy {
    fn push(&mut self, field: &Field, value: Owned) {
        if self.values.len() < MAX_FIELDS {
            self.values.push((field.clone(), value));
        }
    }
}

impl Visit for Copy {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.push(field, Owned::Debug(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Owned::Text(value.to_owned()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Owned::Int(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Owned::Uint(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Owned::Bool(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Owned::Float(value));
    }
}

/// Makes the event anew, with its own metadata, and gives it to the real subscriber.
fn write(entry: &Entry, out: &Dispatch) {
    let shown: Vec<Box<dyn Value + '_>> = entry.values.iter().map(|(_, v)| v.value()).collect();
    let Some((first, _)) = entry.values.first() else {
        return out.event(&Event::new(entry.metadata, &entry.metadata.fields().value_set(&[])));
    };
    // A value set is an array; entries without a value are skipped by whoever reads it.
    let mut set: [(&Field, Option<&dyn Value>); MAX_FIELDS] = [(first, None); MAX_FIELDS];
    for (place, ((field, _), value)) in set.iter_mut().zip(entry.values.iter().zip(&shown)) {
        *place = (field, Some(value.as_ref()));
    }
    out.event(&Event::new(entry.metadata, &entry.metadata.fields().value_set(&set)));
}

impl Owned {
    fn value(&self) -> Box<dyn Value + '_> {
        match self {
            Self::Text(text) => Box::new(text.as_str()),
            Self::Debug(text) => Box::new(display(text)),
            Self::Int(n) => Box::new(*n),
            Self::Uint(n) => Box::new(*n),
            Self::Bool(b) => Box::new(*b),
            Self::Float(f) => Box::new(*f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    /// Tells each event's fields, after it was let through the gate.
    struct Probe {
        seen: Sender<Vec<(String, String)>>,
        gate: Mutex<Option<Receiver<()>>>,
    }

    impl<S: Subscriber> Layer<S> for Probe {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            if let Some(gate) = lock(&self.gate).as_ref() {
                let _ = gate.recv();
            }
            let mut copy = Copy { values: Vec::new() };
            event.record(&mut copy);
            let text = |v: &Owned| match v {
                Owned::Text(t) => format!("text {t}"),
                Owned::Debug(t) => format!("debug {t}"),
                Owned::Int(n) => format!("int {n}"),
                Owned::Uint(n) => format!("uint {n}"),
                Owned::Bool(b) => format!("bool {b}"),
                Owned::Float(f) => format!("float {f}"),
            };
            let fields = copy.values.iter().map(|(f, v)| (f.name().to_owned(), text(v))).collect();
            let _ = self.seen.send(fields);
        }
    }

    type Seen = Receiver<Vec<(String, String)>>;

    fn rig(room: usize, gate: Option<Receiver<()>>) -> (Arc<Relay>, Dispatch, Seen) {
        let (relay, front) = Relay::new(room, LevelFilter::INFO);
        let (seen, out) = channel();
        relay
            .start(
                tracing_subscriber::registry().with(Probe { seen, gate: Mutex::new(gate) }),
                || true,
                || {},
            )
            .unwrap();
        let front = tracing_subscriber::registry().with(relay.gate()).with(front);
        (relay, Dispatch::new(front), out)
    }

    #[test]
    fn events_arrive_with_every_field_and_kind() {
        let (relay, front, out) = rig(8, None);
        tracing::dispatcher::with_default(&front, || {
            tracing::info!(TASKD_ID = "x", n = -1_i64, u = 2_u64, b = true, f = 0.5, d = ?Some(1), "hello {}", 7);
            tracing::debug!("below the level");
        });
        let got = out.recv().unwrap();
        let want = [
            ("message", "debug hello 7"),
            ("TASKD_ID", "text x"),
            ("n", "int -1"),
            ("u", "uint 2"),
            ("b", "bool true"),
            ("f", "float 0.5"),
            ("d", "debug Some(1)"),
        ];
        for (name, value) in want {
            assert!(got.contains(&(name.to_owned(), value.to_owned())), "{name} in {got:?}");
        }
        relay.flush(Duration::from_secs(20));
        assert!(out.try_recv().is_err(), "debug is below info");
    }

    #[test]
    fn a_log_that_nobody_reads_drops_and_counts_but_never_waits() {
        let (open, gate) = channel();
        let (relay, front, out) = rig(4, Some(gate));
        tracing::dispatcher::with_default(&front, || {
            for i in 0..100 {
                tracing::info!(i, "burst");
            }
        });
        // One may be in the writer's hands, four wait.
        assert!(relay.dropped() >= 95, "{}", relay.dropped());
        drop(open);
        let told = std::iter::from_fn(|| out.recv_timeout(Duration::from_secs(20)).ok())
            .find_map(|fields| fields.into_iter().find(|(name, _)| name == "TASKD_DROPPED"));
        assert_eq!(told.map(|(_, v)| v), Some(format!("uint {}", relay.dropped())));
    }

    #[test]
    fn the_level_can_change() {
        let (relay, front, out) = rig(8, None);
        relay.set_level(LevelFilter::DEBUG);
        tracing::dispatcher::with_default(&front, || tracing::debug!("now"));
        assert_eq!(out.recv().unwrap().len(), 1);
    }
}
