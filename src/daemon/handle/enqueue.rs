//! `enqueue`: everything that can be refused is refused here, before the message is accepted.

use super::{Asker, mismatch, stopping, store_error};
use crate::config::settings::Settings;
use crate::control::api::{Enqueue, Enqueued, Error, ErrorKind};
use crate::daemon::clock;
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::model::message::{MAX_BYTES, MAX_PRIORITY, Message};
use crate::model::name::{self, MessageId};
use crate::model::op::Published;
use crate::model::params;
use crate::model::state::State;
use crate::model::task::Task;
use crate::model::time::Wall;

/// Latest time that is accepted for `eta` and `expires`: 9999-12-31.
const LATEST: i64 = 253_402_300_799_000;

/// Checks and publishes.
pub fn handle(d: &mut Daemon, asker: Asker, list: Vec<Enqueue>) {
    let now = clock::now().wall;
    let mut messages = Vec::with_capacity(list.len());
    let single = list.len() == 1;
    for (n, asked) in list.into_iter().enumerate() {
        match message(d, &asker, asked, now) {
            Ok(m) => messages.push(m),
            Err(mut e) => {
                if !single {
                    e.message =
                        format!("message {} of the batch: {} (nothing was enqueued)", n + 1, e.message);
                }
                return asker.error(e);
            }
        }
    }
    if messages.is_empty() {
        return asker.json(&Vec::<Enqueued>::new());
    }
    let first = |m: &Message| if m.eta.is_some_and(|t| t > now) { State::Scheduled } else { State::Waiting };
    let states = messages.iter().map(first).collect();
    d.ask(Ask::Enqueue(messages), Box::new(move |_, told| answer(asker, told, states)));
}

pub(super) fn answer(asker: Asker, told: Told, states: Vec<State>) {
    match told {
        Told::Published(list) => {
            // An id is no secret, the state of what it names is: a stranger learns that it is taken, no more.
            let taken = |(_, _, p): &(MessageId, String, Published)| match p {
                Published::Known(record) => !asker.may_see(record),
                Published::New => false,
            };
            if let Some((id, ..)) = list.iter().find(|one| taken(one)) {
                return asker.error(in_use(id, list.len() > 1));
            }
            let view =
                |((id, queue, published), state): ((MessageId, String, Published), State)| match published {
                    Published::New => Enqueued { id: id.0, state, queue, known: false },
                    Published::Known(r) => {
                        Enqueued { id: id.0, state: r.state, queue: r.message.queue, known: true }
                    }
                };
            asker.json(&list.into_iter().zip(states).map(view).collect::<Vec<_>>());
        }
        Told::QueueFull { queue, max_length } => asker.error(
            Error::new(
                ErrorKind::Full,
                format!("queue {queue} is full: {max_length} messages wait (max_length)"),
            )
            .hint(format!("try again later, or raise max_length of [queues.{queue}]")),
        ),
        Told::NoSuchQueue(queue) => {
            asker.error(Error::new(ErrorKind::UnknownQueue, format!("no queue is named {queue}")));
        }
        Told::Fault(fault) => asker.error(store_error(&fault)),
        Told::Stopping => asker.error(stopping()),
        _ => asker.error(mismatch()),
    }
}

fn in_use(id: &MessageId, batch: bool) -> Error {
    let rest = if batch { "; the other messages of the batch are stored" } else { "" };
    Error::new(ErrorKind::Conflict, format!("this id is in use: {id}{rest}"))
        .hint("choose another id, or give none and let one be made")
}

fn message(d: &Daemon, asker: &Asker, asked: Enqueue, now: Wall) -> Result<Message, Error> {
    let Some(task) = d.settings.task(&asked.task) else {
        return Err(unknown_task(d, &asked.task));
    };
    allowed(d, asker, task)?;
    if !task.enabled {
        return Err(Error::new(ErrorKind::Conflict, format!("task {} is disabled", task.name))
            .hint(format!("set enabled = true in [tasks.{}] and reload", task.name)));
    }
    let bad = |what: String| Error::new(ErrorKind::BadArguments, what);
    let id = asked.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    name::check(&id).map_err(|e| bad(format!("the id {id:?} {e}")))?;
    let priority = asked.priority.unwrap_or(task.priority);
    if priority > MAX_PRIORITY {
        return Err(bad(format!("priority {priority} is not between 0 and {MAX_PRIORITY} (9 goes first)")));
    }
    params::bind(task, &asked.args, &asked.kwargs).map_err(|faults| arguments(task, faults))?;
    let eta = match (asked.eta, asked.delay_ms) {
        (Some(_), Some(_)) => return Err(bad("give eta or delay_ms, not both".into())),
        (eta, delay) => eta.map(Wall).or_else(|| delay.filter(|ms| *ms > 0).map(|ms| now.plus(ms))),
    };
    let expires = asked.expires.map(Wall).or_else(|| task.expires_ms.map(|ms| eta.unwrap_or(now).plus(ms)));
    if [eta, expires].into_iter().flatten().any(|t| t.0 < 0 || t.0 > LATEST) {
        return Err(bad("eta and expires must be between the years 1970 and 9999".into()));
    }
    let known_queue = |q: &String| d.settings.queues.contains_key(q);
    let queue = match asked.queue {
        Some(queue) if known_queue(&queue) => {
            same_user(&d.settings, task, &queue)?;
            queue
        }
        Some(queue) => {
            let names = d.settings.queues.keys().map(String::as_str);
            let mut e = Error::new(ErrorKind::UnknownQueue, format!("no queue is named {queue}"));
            e.hint = suggestion(&queue, names).map(|s| format!("did you mean {s}?"));
            return Err(e);
        }
        None => String::new(),
    };
    let message = Message {
        id: MessageId(id),
        task: asked.task,
        queue,
        args: asked.args,
        kwargs: asked.kwargs,
        priority,
        eta,
        expires,
        enqueued: now,
        uid: Some(asker.peer.uid),
        headers: asked.headers,
        ..Message::default()
    };
    let size = size(&message);
    if size > MAX_BYTES {
        let what = format!("the message is {size} bytes of JSON, at most {MAX_BYTES} are accepted");
        return Err(
            Error::new(ErrorKind::TooLarge, what).hint("store the data elsewhere and enqueue its name")
        );
    }
    Ok(message)
}

/// Refuses a queue whose pool would run the task as another user than its own queue's pool: no runner may
/// take such a message, so it would come back for ever.
fn same_user(settings: &Settings, task: &Task, queue: &str) -> Result<(), Error> {
    if settings.runs_alike(task, queue) {
        return Ok(());
    }
    let home = settings.route(task);
    let key = |queue: &str| settings.pool_of(queue).map(|pool| settings.runner_key(pool, task));
    let (there, own) = (key(queue), key(home));
    let shown =
        |key: Option<String>| key.filter(|k| !k.is_empty()).unwrap_or_else(|| "taskd's own user".to_owned());
    let (there, own) = (shown(there), shown(own));
    let name = &task.name;
    let what =
        format!("task {name} runs as {own} (queue {home}), but in queue {queue} it would run as {there}");
    let hint =
        format!("leave the queue out, or set `user` in [tasks.{name}]: then every queue runs it as that");
    Err(Error::new(ErrorKind::BadArguments, what).hint(hint))
}

/// Bytes of arguments and headers as JSON, counted without writing them.
fn size(m: &Message) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, b: &[u8]) -> std::io::Result<usize> {
            self.0 += b.len();
            Ok(b.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Writing to a counter cannot fail, JSON values always serialize.
    let _ = serde_json::to_writer(&mut count, &(&m.args, &m.kwargs, &m.headers));
    count.0
}

fn arguments(task: &Task, faults: Vec<String>) -> Error {
    let mut faults = faults.into_iter();
    let first = faults.next().unwrap_or_else(|| "the arguments do not fit".into());
    let mut e = Error::new(ErrorKind::BadArguments, format!("task {}: {first}", task.name));
    e.details = faults.collect();
    if !task.params.is_empty() {
        let list: Vec<&str> = task.params.iter().map(|p| p.name.as_str()).collect();
        e.hint = Some(format!("its parameters are: {} (`taskd tasks` shows their types)", list.join(", ")));
    }
    e
}

/// Whether this peer may enqueue this task (and so retry it).
///
/// # Errors
/// Who may.
pub fn allowed(d: &Daemon, asker: &Asker, task: &Task) -> Result<(), Error> {
    let policy = d.policy.borrow();
    if policy.may_enqueue(task.allow.as_deref(), &asker.peer, &asker.rights) {
        return Ok(());
    }
    let why = match &task.allow {
        Some(list) if list.is_empty() => format!("task {} may be enqueued by admins only", task.name),
        Some(list) => format!("task {} may be enqueued by {} only", task.name, list.join(", ")),
        None => "you may not enqueue here".to_owned(),
    };
    Err(Error::new(ErrorKind::Forbidden, why)
        .hint("the config's [access] enqueue and the task's allow decide"))
}

fn unknown_task(d: &Daemon, name: &str) -> Error {
    let mut e = Error::new(ErrorKind::UnknownTask, format!("no task is named {name}"));
    e.hint = suggestion(name, d.settings.tasks.keys().map(String::as_str)).map_or_else(
        || Some("`taskd tasks` lists the declared tasks".to_owned()),
        |s| Some(format!("did you mean {s}?")),
    );
    e
}

/// The name that was probably meant.
#[must_use]
pub fn suggestion<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|n| (strsim::jaro_winkler(given, n), n))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, n)| n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, load_texts};
    use crate::control::api::{Answer, Peer, Rights};
    use crate::model::message::Record;

    #[test]
    fn a_queue_that_would_change_the_user_is_refused() {
        let text = "[pools.low]\nuser = 'low'\n[pools.high]\nuser = 'high'\n[pools.more]\nuser = 'low'\n\
            [queues.low]\npool = 'low'\n[queues.high]\npool = 'high'\n[queues.more]\npool = 'more'\n\
            [tasks.plain]\ncommand = 'x'\nqueue = 'low'\n\
            [tasks.own]\ncommand = 'x'\nqueue = 'low'\nuser = 'low'\n";
        let env = Env::made("root", 0, &[("low", 1001), ("high", 1002)]);
        let s = load_texts(&[("taskd.toml", text)], &env).map_err(|r| r.render(false)).unwrap().settings;
        let refused = |task: &str, queue: &str| same_user(&s, &s.tasks[task], queue).err();
        assert_eq!(refused("plain", "low"), None);
        assert_eq!(refused("plain", "more"), None, "another pool of the same user");
        assert_eq!(refused("own", "high"), None, "its own user goes with it");
        let e = refused("plain", "high").unwrap();
        assert_eq!(e.kind, ErrorKind::BadArguments);
        assert!(e.message.contains("as low") && e.message.contains("as high"), "{e}");
    }

    /// What uid 1 is told of an id that uid `owner` enqueued before.
    fn told(owner: u32, rights: Rights) -> Answer {
        let record: Record = serde_json::from_value(serde_json::json!({
            "message": {
                "id": "i", "task": "t", "queue": "q", "args": [], "kwargs": {}, "priority": 0,
                "enqueued": 0, "uid": owner,
            },
            "state": "FAILURE", "attempt": 1, "losses": 0,
        }))
        .unwrap();
        let (answer_to, mut received) = tokio::sync::oneshot::channel();
        let peer = Peer { uid: 1, gid: 1, groups: Vec::new(), pid: 1 };
        let asker = Asker { peer, rights, answer: answer_to };
        let known = (MessageId("i".into()), "q".to_owned(), Published::Known(Box::new(record)));
        answer(asker, Told::Published(vec![known]), vec![State::Waiting]);
        received.try_recv().unwrap()
    }

    #[test]
    fn a_known_id_is_told_with_its_state_to_those_only_who_may_see_it() {
        let read = Rights { read: true, ..Rights::default() };
        for (owner, rights) in [(1, Rights::default()), (2, read)] {
            let Answer::Json(text) = told(owner, rights) else { panic!("refused to {owner}") };
            assert!(text.contains("FAILURE") && text.contains("\"known\":true"), "{text}");
        }
        let Answer::Error(e) = told(2, Rights::default()) else { panic!("told to a stranger") };
        assert_eq!(e.kind, ErrorKind::Conflict);
        assert!(!serde_json::to_string(&e).unwrap().contains("FAILURE"), "{e}");
    }
}
