//! Workflows: launched, and found by their ids where a message could be meant as well.

use super::enqueue::{Given, step_message};
use super::{Asker, mismatch, no_such_message, stopping, store_error};
use crate::control::api::{
    Done, Enqueue, Error, ErrorKind, LaunchedView, StepView, WorkflowBody, WorkflowView,
};
use crate::control::canvas::{DeclaredView, Placed};
use crate::daemon::clock;
use crate::daemon::state::Daemon;
use crate::engine::Walked;
use crate::engine::command::Told;
use crate::engine::event::Ask;
use crate::model::message::Record;
use crate::model::name::MessageId;
use crate::model::op::{Op, Reply};
use crate::model::workflow::{Head, Look, Seen, Stage, Step, StepSeen, Unfit, When, Workflow};

/// Checks and launches.
pub fn handle(d: &mut Daemon, asker: Asker, mut body: WorkflowBody) {
    let id = MessageId(body.id.take().unwrap_or_else(|| uuid::Uuid::now_v7().to_string()));
    let workflow = match body.name.clone() {
        Some(name) => declared(d, &asker, &body, &name, id),
        None => body.layout().and_then(|(kind, placed)| built(d, &asker, id, kind, Vec::new(), placed)),
    };
    match workflow {
        Ok(workflow) => launch(d, asker, workflow),
        Err(e) => asker.error(e),
    }
}

fn launch(d: &mut Daemon, asker: Asker, workflow: Workflow) {
    let steps = u32::try_from(workflow.steps.len()).unwrap_or(u32::MAX);
    d.ask(
        Ask::Launch(Box::new(workflow)),
        Box::new(move |_, told| match told {
            Told::Launched { id, known: None } => {
                asker.json(&LaunchedView { id: id.0, steps, known: false });
            }
            Told::Launched { id, known: Some(head) } if may_see(&asker, &head) => {
                asker.json(&LaunchedView { id: id.0, steps: head.steps, known: true });
            }
            Told::Launched { id, .. } => asker.error(super::enqueue::in_use(&id, false)),
            Told::IsMessage(record) if asker.may_see(&record) => asker.error(is_message(&record)),
            Told::IsMessage(record) => asker.error(super::enqueue::in_use(&record.message.id, false)),
            other => refused(asker, other),
        }),
    );
}

/// An id names one thing: `show`, `cancel` and `retry` are given nothing else.
fn is_message(record: &Record) -> Error {
    let (id, task, state) = (&record.message.id, &record.message.task, record.state);
    let what =
        format!("the id {id} is that of a message of the task {task} ({state}), so no workflow can have it");
    Error::new(ErrorKind::Conflict, what).hint("choose another id, or give none and let one be made")
}

/// The same for a message that asks for the id of a workflow.
pub(super) fn is_workflow(asker: &Asker, head: &Head, batch: bool) -> Error {
    if !may_see(asker, head) {
        return super::enqueue::in_use(&head.id, batch);
    }
    let rest = if batch { "; the other messages of the batch are stored" } else { "" };
    let (id, name, state) = (&head.id, &head.name, head.state());
    let what =
        format!("the id {id} is that of the workflow {name} ({state}), so no message can have it{rest}");
    Error::new(ErrorKind::Conflict, what).hint("choose another id, or give none and let one be made")
}

/// What every launch may be answered with beside its own answer.
pub fn refused(asker: Asker, told: Told) {
    match told {
        Told::QueueFull { queue, max_length } => asker.error(
            Error::new(
                ErrorKind::Full,
                format!(
                    "queue {queue} has no room for this: at most {max_length} messages wait (max_length)"
                ),
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

/// A workflow of the config.
fn declared(
    d: &Daemon,
    asker: &Asker,
    body: &WorkflowBody,
    name: &str,
    id: MessageId,
) -> Result<Workflow, Error> {
    if body.chain.is_some() || body.group.is_some() || body.chord.is_some() || body.steps.is_some() {
        return Err(Error::new(
            ErrorKind::BadRequest,
            "give exactly one of chain, group, chord, steps and name",
        ));
    }
    let Some(declared) = d.settings.workflows.get(name) else {
        let mut e = Error::new(ErrorKind::UnknownTask, format!("no workflow is named {name}"));
        let names = d.settings.workflows.keys().map(String::as_str);
        e.hint = Some(match super::enqueue::suggestion(name, names) {
            Some(near) => format!("did you mean {near}?"),
            None => "`taskd workflow list` shows what is declared".to_owned(),
        });
        return Err(e);
    };
    for step in &declared.steps {
        super::enqueue::runnable(d, asker, &step.message.task)?;
    }
    declared.launch(id, Some(asker.peer.uid)).map_err(unfit)
}

/// Steps of a request as a workflow, behind those that are there already.
///
/// # Errors
/// What is wrong with which step.
pub fn built(
    d: &Daemon,
    asker: &Asker,
    id: MessageId,
    kind: &str,
    mut steps: Vec<Step>,
    placed: Vec<Placed>,
) -> Result<Workflow, Error> {
    let now = clock::now().wall;
    steps.reserve(placed.len());
    for Placed { body, after, when, gather, sink } in placed {
        let no = steps.len();
        let given = match (after.is_empty() || body.immutable, when) {
            (true, _) => Given::Nothing,
            (false, When::Success | When::Failure) => Given::Something,
        };
        let asked = Enqueue {
            task: body.task,
            args: body.args,
            kwargs: body.kwargs,
            queue: body.queue,
            priority: body.priority,
            headers: body.headers,
            ..Enqueue::default()
        };
        let task = asked.task.clone();
        let message = step_message(d, asker, asked, now, given).map_err(|mut e| {
            e.message = format!("step {no} ({task}): {}", e.message);
            e
        })?;
        steps.push(Step {
            name: body.name,
            expires_ms: d.settings.task(&message.task).and_then(|t| t.expires_ms),
            message,
            after,
            when,
            on_error: body.on_error,
            immutable: body.immutable,
            gather,
            sink,
            delay_ms: body.delay_ms,
        });
    }
    Workflow::new(id, kind, Some(asker.peer.uid), steps).map_err(unfit)
}

fn unfit(e: Unfit) -> Error {
    let kind = match e {
        Unfit::Steps(_) | Unfit::Edges(_) => ErrorKind::TooLarge,
        _ => ErrorKind::BadRequest,
    };
    Error::new(kind, e.to_string())
}

fn may_see(asker: &Asker, head: &Head) -> bool {
    asker.rights.admin || asker.rights.read || owns(asker, head)
}

fn owns(asker: &Asker, head: &Head) -> bool {
    head.uid == Some(asker.peer.uid)
}

/// What an id names.
pub enum Found {
    /// A message.
    Message(Box<Record>),
    /// A workflow, with one of its steps.
    Workflow(Box<Seen>),
}

/// Looks an id up and goes on with what it names, if this peer may see it.
pub fn find(
    d: &mut Daemon,
    asker: Asker,
    id: String,
    then: impl FnOnce(&mut Daemon, Asker, Found) + 'static,
) {
    let op = Op::Get { id: MessageId(id.clone()) };
    d.read(
        op,
        Box::new(move |d, reply| match reply {
            Ok(Reply::Record(Some(record))) if asker.may_see(&record) => {
                then(d, asker, Found::Message(record))
            }
            Ok(Reply::Record(Some(_))) => asker.error(no_such_message(&id)),
            Ok(Reply::Record(None)) => {
                let look = Look { id: MessageId(id.clone()), from: 0, limit: 1, results: false };
                look_up(d, asker, look, move |d, asker, seen| match seen {
                    Some(seen) => then(d, asker, Found::Workflow(seen)),
                    None => asker.error(no_such_message(&id)),
                });
            }
            Ok(_) => asker.error(mismatch()),
            Err(fault) => asker.fault(&fault),
        }),
    );
}

/// The same for what only admins and who asked for it may do.
pub fn find_own(
    d: &mut Daemon,
    asker: Asker,
    id: String,
    verb: &'static str,
    then: impl FnOnce(&mut Daemon, Asker, Found) + 'static,
) {
    find(d, asker, id, move |d, asker, found| {
        let own = match &found {
            Found::Message(record) => asker.owns(record),
            Found::Workflow(seen) => owns(&asker, &seen.head),
        };
        if asker.rights.admin || own {
            return then(d, asker, found);
        }
        let what = match found {
            Found::Message(_) => format!("only who enqueued this message and admins may {verb} it"),
            Found::Workflow(_) => format!("only who launched this workflow and admins may {verb} it"),
        };
        asker.error(Error::new(ErrorKind::Forbidden, what).hint("the config's [access] admin decides"));
    });
}

pub(super) fn look_up(
    d: &mut Daemon,
    asker: Asker,
    look: Look,
    then: impl FnOnce(&mut Daemon, Asker, Option<Box<Seen>>) + 'static,
) {
    d.read(
        Op::Look(look),
        Box::new(move |d, reply| match reply {
            Ok(Reply::Seen(seen)) => {
                let seen = seen.filter(|s| may_see(&asker, &s.head));
                then(d, asker, seen);
            }
            Ok(_) => asker.error(mismatch()),
            Err(fault) => asker.fault(&fault),
        }),
    );
}

fn no_such_workflow(id: &str) -> Error {
    Error::new(ErrorKind::UnknownMessage, format!("no workflow has, or has a message with, the id {id}"))
        .hint("workflows are forgotten a day after their last step ended, or after [results] expires if that is longer")
}

/// A workflow, by its own id or that of one of its messages.
pub fn look(
    d: &mut Daemon,
    asker: Asker,
    look: Look,
    then: impl FnOnce(&mut Daemon, Asker, Box<Seen>) + 'static,
) {
    let id = look.id.0.clone();
    find(d, asker, id.clone(), move |d, asker, found| {
        let of = match found {
            Found::Workflow(seen) => seen.head.id,
            Found::Message(record) => match record.message.step {
                Some(step) => step.workflow,
                None => return asker.error(no_such_workflow(&id)),
            },
        };
        look_up(d, asker, Look { id: of, ..look }, move |d, asker, seen| match seen {
            Some(seen) => then(d, asker, seen),
            None => asker.error(no_such_workflow(&id)),
        });
    });
}

/// A workflow as the API shows it.
#[must_use]
pub fn view(seen: Seen) -> WorkflowView {
    let Seen { head, steps, next } = seen;
    WorkflowView {
        state: head.state(),
        id: head.id.0,
        name: head.name,
        uid: head.uid,
        schedule: head.fired.as_ref().map(|f| f.schedule.clone()),
        planned: head.fired.and_then(|f| f.planned).map(|at| at.0),
        launched: head.launched.0,
        finished: head.finished.map(|t| t.0),
        steps: head.steps,
        open: head.open,
        failed: head.failed,
        list: steps.into_iter().map(step_view).collect(),
        next,
    }
}

fn step_view(step: StepSeen) -> StepView {
    let state = match (step.stage, step.state) {
        (Stage::Pending, _) => "PENDING",
        (Stage::Skipped, _) => "SKIPPED",
        (Stage::Ended(state), _) | (Stage::Published, Some(state)) => state.name(),
        (Stage::Published, None) => "WAITING",
    };
    StepView {
        no: step.no,
        id: step.id.0,
        name: step.name,
        task: step.task,
        state: state.to_owned(),
        after: step.after,
        when: step.when,
        outcome: step.outcome,
    }
}

/// Those that the config declares.
pub fn list(d: &Daemon, asker: Asker) {
    let view = |(name, declared): (&String, &crate::model::workflow::Declared)| DeclaredView {
        name: name.clone(),
        steps: (0_u32..)
            .zip(&declared.steps)
            .map(|(no, step)| StepView {
                no,
                id: String::new(),
                name: step.name.clone(),
                task: step.message.task.clone(),
                state: "DECLARED".to_owned(),
                after: step.after.clone(),
                when: step.when,
                outcome: None,
            })
            .collect(),
    };
    asker.json(&d.settings.workflows.iter().map(view).collect::<Vec<_>>());
}

/// Ends everything of a workflow.
pub fn cancel(d: &mut Daemon, asker: Asker, id: String) {
    find_own(d, asker, id, "cancel", |d, asker, found| match found {
        Found::Workflow(seen) => cancel_found(d, asker, &seen),
        Found::Message(record) => asker.error(no_such_workflow(record.message.id.as_str())),
    });
}

/// Begins what failed of a workflow anew.
pub fn retry(d: &mut Daemon, asker: Asker, id: String) {
    find_own(d, asker, id, "retry", |d, asker, found| match found {
        Found::Workflow(seen) => retry_found(d, asker, &seen),
        Found::Message(record) => asker.error(no_such_workflow(record.message.id.as_str())),
    });
}

/// Cancels a workflow that was found.
pub fn cancel_found(d: &mut Daemon, asker: Asker, seen: &Seen) {
    let id = seen.head.id.clone();
    if seen.head.finished.is_some() {
        let what = format!("workflow {id} is {} already", seen.head.state());
        return asker.error(
            Error::new(ErrorKind::Conflict, what).hint("`taskd retry` begins what failed of it anew"),
        );
    }
    d.ask(
        Ask::CancelWorkflow(id.clone()),
        Box::new(move |_, told| match told {
            Told::FlowCanceled(Walked { head: None, .. }) => asker.error(no_such_workflow(id.as_str())),
            Told::FlowCanceled(Walked { steps, ending, unsure, .. }) => {
                let mut message = format!("workflow {id}: {} ended before they started", count(steps));
                if ending > 0 {
                    message
                        .push_str(&format!(", {} running: their processes are being ended", count(ending)));
                }
                if unsure > 0 {
                    message.push_str(&format!(", {} on their way: repeat this", count(unsure)));
                }
                asker.json(&Done { message, count: Some(steps + ending), ..Done::default() });
            }
            other => refused(asker, other),
        }),
    );
}

/// Retries a workflow that was found.
pub fn retry_found(d: &mut Daemon, asker: Asker, seen: &Seen) {
    let id = seen.head.id.clone();
    if seen.head.failed == 0 {
        let what = format!("workflow {id} is {}: nothing of it failed", seen.head.state());
        return asker.error(Error::new(ErrorKind::Conflict, what));
    }
    d.ask(
        Ask::RetryWorkflow(id.clone()),
        Box::new(move |_, told| match told {
            Told::FlowRetried(Walked { head: None, .. }) => asker.error(no_such_workflow(id.as_str())),
            Told::FlowRetried(Walked { steps, gone, .. }) if gone > 0 => {
                asker.error(not_all_anew(&id, steps, gone))
            }
            Told::FlowRetried(Walked { steps, .. }) => {
                let message = format!("workflow {id}: {} begin anew, what succeeded stays", count(steps));
                asker.json(&Done { message, count: Some(steps), ..Done::default() });
            }
            other => refused(asker, other),
        }),
    );
}

/// Some of what failed cannot begin anew, so the whole will not end well.
fn not_all_anew(id: &MessageId, steps: u64, gone: u64) -> Error {
    let rest = if steps > 0 { format!("; {} begin anew", count(steps)) } else { String::new() };
    let lost = count(gone);
    let what = format!("workflow {id}: {lost} cannot run again, their arguments are not kept any more{rest}");
    Error::new(ErrorKind::Conflict, what)
        .hint("launch it anew; [results] expires says how long finished messages are kept")
}

fn count(n: u64) -> String {
    crate::control::api::count(n, "step")
}
