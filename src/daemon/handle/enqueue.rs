//! `enqueue`: everything that can be refused is refused here, before the message is accepted.

use std::collections::BTreeSet;

use super::{Asker, mismatch, stopping, store_error};
use crate::config::settings::Settings;
use crate::control::api::{Enqueue, Enqueued, Error, ErrorKind, StepBody};
use crate::control::canvas;
use crate::daemon::clock;
use crate::daemon::state::Daemon;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::model::message::{MAX_BYTES, MAX_PRIORITY, Message, Record};
use crate::model::name::{self, MessageId};
use crate::model::notice::RESERVED;
use crate::model::op::Published;
use crate::model::state::State;
use crate::model::task::Task;
use crate::model::time::Wall;
use crate::model::unique;
use crate::model::workflow::{Step, Workflow};
use crate::model::{handed, params};

/// Latest time that is accepted for `eta` and `expires`: 9999-12-31.
const LATEST: i64 = 253_402_300_799_000;

/// Checks and publishes.
pub fn handle(d: &mut Daemon, asker: Asker, list: Vec<Enqueue>) {
    let now = clock::now().wall;
    if list.iter().any(|m| !m.link.is_empty() || !m.link_error.is_empty()) {
        return linked(d, asker, list, now);
    }
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
    let asked = messages.iter().map(|m| Asked { state: first(m), call: call(d, m) }).collect();
    d.ask(Ask::Enqueue(messages), Box::new(move |d, told| answer(asker, told, asked, &|m| call(d, m))));
}

/// What is remembered of a message until the answer comes.
pub(super) struct Asked {
    /// Its state if it is stored.
    pub state: State,
    /// Its call.
    pub call: Option<u64>,
}

/// A number for what a message calls, the same however the arguments were written. None: nobody can tell any more.
pub(super) fn call(d: &Daemon, m: &Message) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let task = d.settings.task(&m.task)?;
    let mut hasher = DefaultHasher::new();
    unique::call(task, &m.task, &m.args, &m.kwargs).hash(&mut hasher);
    Some(hasher.finish())
}

/// Whether what has this id is another call.
fn differs(record: &Record, asked: &Asked, call: &dyn Fn(&Message) -> Option<u64>) -> bool {
    // The arguments of a record whose retention is over are gone.
    let slim = record.state.is_final() && record.outcome.is_none();
    let there = call(&record.message).filter(|_| !slim);
    there.zip(asked.call).is_some_and(|(there, asked)| there != asked)
}

/// A message with links is a workflow: its own id stays that of the message.
fn linked(d: &mut Daemon, asker: Asker, mut list: Vec<Enqueue>, now: Wall) {
    let one = if list.len() == 1 { list.pop() } else { None };
    let Some(mut asked) = one else {
        let what = "link and link_error are for a single message";
        let e = Error::new(ErrorKind::BadRequest, what);
        return asker.error(e.hint("launch each of them with POST /v1/workflows"));
    };
    let (link, link_error) = (std::mem::take(&mut asked.link), std::mem::take(&mut asked.link_error));
    let workflow = || -> Result<Workflow, Error> {
        let message = message(d, &asker, asked, now)?;
        let body = StepBody { task: message.task.clone(), link, link_error, ..StepBody::default() };
        let mut placed = canvas::linked(body)?;
        // The first step is the message itself, which is checked already.
        let first = placed.remove(0);
        let own = message.id.follow_up("workflow", 0);
        let (eta, expires) = (message.eta, message.expires);
        let first = Step {
            sink: first.sink,
            delay_ms: eta.map(|t| t.since(now)),
            expires_ms: expires.map(|t| t.since(eta.unwrap_or(now))),
            message,
            ..Step::default()
        };
        let workflow = super::workflow::built(d, &asker, own, "link", vec![first], placed)?;
        Ok(Workflow { linked: true, ..workflow })
    };
    let workflow = match workflow() {
        Ok(workflow) => workflow,
        Err(e) => return asker.error(e),
    };
    let later = workflow.steps.first().is_some_and(|s| s.delay_ms.is_some_and(|ms| ms > 0));
    let state = if later { State::Scheduled } else { State::Waiting };
    let Some((id, call)) = workflow.steps.first().map(|s| (s.message.id.clone(), call(d, &s.message))) else {
        return asker.error(mismatch());
    };
    d.ask(
        Ask::Launch(Box::new(workflow)),
        Box::new(move |d, told| match told {
            // Its message was forgotten, which its followers are not yet.
            Told::Launched { .. } => asker.error(in_use(&id, false)),
            told @ (Told::Published(_) | Told::Taken { .. }) => {
                answer(asker, told, vec![Asked { state, call }], &|m| self::call(d, m));
            }
            Told::IsMessage(record) => asker.error(in_use(&record.message.id, false)),
            other => super::workflow::refused(asker, other),
        }),
    );
}

pub(super) fn answer(asker: Asker, told: Told, asked: Vec<Asked>, call: &dyn Fn(&Message) -> Option<u64>) {
    match told {
        Told::Published(list) => {
            // An id is no secret, the state of what it names is: a stranger learns that it is taken, no more.
            let strange = |(_, _, p): &&(MessageId, String, Published)| match p {
                Published::Known(record) | Published::Held(record) => !asker.may_see(record),
                Published::New | Published::Replaced(_) | Published::Workflow(_) => false,
            };
            let batch = list.len() > 1;
            let workflow = list.iter().find_map(|(_, _, p)| match p {
                Published::Workflow(head) => Some(head),
                _ => None,
            });
            if let Some(head) = workflow {
                let e = super::workflow::is_workflow(&asker, head, batch);
                return asker.error(e);
            }
            if let Some((id, _, published)) = list.iter().find(strange) {
                let held = matches!(published, Published::Held(_));
                return asker.error(if held { key_taken(None, batch) } else { in_use(id, batch) });
            }
            // One of this batch may have ended an earlier one.
            let replaced: BTreeSet<MessageId> = list
                .iter()
                .filter_map(
                    |(_, _, p)| if let Published::Replaced(old) = p { Some(old.clone()) } else { None },
                )
                .collect();
            let view = |((id, queue, published), asked): ((MessageId, String, Published), Asked)| {
                let state = if replaced.contains(&id) { State::Revoked } else { asked.state };
                let (known, unique) =
                    (matches!(published, Published::Known(_)), matches!(published, Published::Held(_)));
                let new = Enqueued {
                    id: id.0,
                    state,
                    queue,
                    known,
                    differs: false,
                    unique,
                    workflow: false,
                    replaced: None,
                };
                match published {
                    Published::New | Published::Workflow(_) => new,
                    Published::Replaced(old) => Enqueued { replaced: Some(old.0), ..new },
                    Published::Known(r) => {
                        let differs = differs(&r, &asked, call);
                        Enqueued { state: r.state, queue: r.message.queue, differs, ..new }
                    }
                    Published::Held(r) => {
                        Enqueued { id: r.message.id.0, state: r.state, queue: r.message.queue, ..new }
                    }
                }
            };
            asker.json(&list.into_iter().zip(asked).map(view).collect::<Vec<_>>());
        }
        Told::Taken { holder, record, .. } => {
            let seen = record.is_none_or(|record| asker.may_see(&record));
            let mut e = key_taken(seen.then_some(&holder), false);
            if asked.len() > 1 {
                e.message.push_str(" (nothing was enqueued)");
            }
            asker.error(e);
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

/// Another message holds the key of a task that is unique.
pub(super) fn key_taken(holder: Option<&MessageId>, rest: bool) -> Error {
    let rest = if rest { "; the other messages of the batch are stored" } else { "" };
    let (who, hint) = match holder {
        Some(id) => (id.to_string(), format!("`taskd status {id}` shows it")),
        None => ("somebody else's message".to_owned(), "try again when it is over".to_owned()),
    };
    let what = format!("the task is unique, and {who} holds the key{rest}");
    Error::new(ErrorKind::Conflict, what).hint(hint)
}

pub(super) fn in_use(id: &MessageId, batch: bool) -> Error {
    let rest = if batch { "; the other messages of the batch are stored" } else { "" };
    Error::new(ErrorKind::Conflict, format!("this id is in use: {id}{rest}"))
        .hint("choose another id, or give none and let one be made")
}

/// What a message is given beside its own arguments when its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Nothing: they are all there.
    Nothing,
    /// What goes in front of them: a result, or an id.
    Something,
}

/// A task that this peer may enqueue and that runs.
///
/// # Errors
/// No such task; not permitted; disabled.
pub(super) fn runnable<'d>(d: &'d Daemon, asker: &Asker, name: &str) -> Result<&'d Task, Error> {
    let Some(task) = d.settings.task(name).filter(|_| !name.starts_with(RESERVED)) else {
        return Err(unknown_task(d, name));
    };
    allowed(d, asker, task)?;
    if !task.enabled {
        return Err(Error::new(ErrorKind::Conflict, format!("task {} is disabled", task.name))
            .hint(format!("set enabled = true in [tasks.{}] and reload", task.name)));
    }
    Ok(task)
}

fn message(d: &Daemon, asker: &Asker, asked: Enqueue, now: Wall) -> Result<Message, Error> {
    let id = asked.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    name::check(&id).map_err(|e| Error::new(ErrorKind::BadArguments, format!("the id {id:?} {e}")))?;
    let message = step_message(d, asker, asked, now, Given::Nothing)?;
    Ok(Message { id: MessageId(id), ..message })
}

/// A message without an id.
///
/// # Errors
/// What is wrong with it.
pub(super) fn step_message(
    d: &Daemon,
    asker: &Asker,
    asked: Enqueue,
    now: Wall,
    given: Given,
) -> Result<Message, Error> {
    let task = runnable(d, asker, &asked.task)?;
    let bad = |what: String| Error::new(ErrorKind::BadArguments, what);
    let priority = asked.priority.unwrap_or(task.priority);
    if priority > MAX_PRIORITY {
        return Err(bad(format!("priority {priority} is not between 0 and {MAX_PRIORITY} (9 goes first)")));
    }
    let typed = match given {
        Given::Nothing => params::bind(task, &asked.args, &asked.kwargs).map(Some),
        Given::Something => handed::bind_later(task, &asked.args, &asked.kwargs).map(|()| None),
    }
    .map_err(|faults| arguments(task, faults))?;
    // A Celery worker knows nothing of declared types: it gets values of them.
    let (args, kwargs) = match typed.filter(|_| task.external) {
        Some(bound) => (bound.args, bound.kwargs),
        None => (asked.args, asked.kwargs),
    };
    let eta = match (asked.eta, asked.delay_ms) {
        (Some(_), Some(_)) => return Err(bad("give eta or delay_ms, not both".into())),
        (eta, delay) => eta.map(Wall).or_else(|| delay.filter(|ms| *ms > 0).map(|ms| now.plus(ms))),
    };
    let expires = asked.expires.map(Wall).or_else(|| task.expires_ms.map(|ms| eta.unwrap_or(now).plus(ms)));
    if [eta, expires].into_iter().flatten().any(|t| t.0 < 0 || t.0 > LATEST) {
        return Err(bad("eta and expires must be between the years 1970 and 9999".into()));
    }
    let known_queue = |q: &String| {
        let known =
            if task.external { d.settings.takes_outside(q) } else { d.settings.queues.contains_key(q) };
        known && !q.starts_with(RESERVED)
    };
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
        id: MessageId::default(),
        task: asked.task,
        queue,
        args,
        kwargs,
        priority,
        eta,
        expires,
        enqueued: now,
        uid: Some(asker.peer.uid),
        headers: asked.headers,
        ..Message::default()
    };
    let size = message.size();
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

pub(super) fn unknown_task(d: &Daemon, name: &str) -> Error {
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
        let asked = vec![Asked { state: State::Waiting, call: None }];
        answer(asker, Told::Published(vec![known]), asked, &|_| None);
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
