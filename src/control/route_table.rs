//! The table itself: everything that can be asked of the control API.

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::api::{
    BackupPiece, DeadBody, DeadDone, Done, DrainBody, Enqueue, Enqueued, Exported, LaunchedView, LogLine,
    MessageView, NotifyBody, PlannedView, QueueView, RateBody, RateView, ReloadBody, RewindBody, RunBody,
    ScheduleView, StatusView, StopBody, TaskView, WhyView, WorkflowBody, WorkflowView,
};
use super::canvas::DeclaredView;
use super::dead;
use super::route::{BULK, Body, Method, Need, Query, Route, Shape};
use super::route_input as input;

/// Largest body of a verb with options.
const SMALL: usize = 64 << 10;

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// One [`Enqueue`] or an array of them.
fn one_or_many(generator: &mut SchemaGenerator) -> Schema {
    let (one, many) = (of::<Enqueue>(generator), of::<Vec<Enqueue>>(generator));
    schemars::json_schema!({ "oneOf": [one, many] })
}

const BASE: Route = Route {
    method: Method::Get,
    path: "/",
    need: Need::Admin,
    name: "",
    about: "",
    query: &[],
    body: None,
    answer: Shape::Json(of::<Done>),
    parse: input::nothing,
};

const POST: Route = Route { method: Method::Post, ..BASE };

const fn body<T: JsonSchema>(limit: usize, optional: bool) -> Option<Body> {
    Some(Body { limit, optional, schema: of::<T> })
}

const PLANNED: &[Query] =
    &[Query { name: "n", kind: "integer", about: "At most this many, 1 to 1,000; default 20." }];

/// Everything that can be asked; the most frequent first.
pub static ROUTES: &[Route] = &[
    Route {
        path: "/v1/messages",
        need: Need::Enqueue,
        name: "enqueue",
        about: "Enqueue one message, or an array of them: all or none.",
        body: Some(Body { limit: BULK, optional: false, schema: one_or_many }),
        answer: Shape::Json(of::<Vec<Enqueued>>),
        parse: input::enqueue,
        ..POST
    },
    Route {
        path: "/v1/messages/{id}/result",
        need: Need::Own,
        name: "result",
        about: "The message once it is final, or as it is after the wait.",
        query: &[Query {
            name: "wait_ms",
            kind: "integer",
            about: "Wait at most this long for a final state; default 0, at most 60,000.",
        }],
        answer: Shape::Json(of::<MessageView>),
        parse: input::result,
        ..BASE
    },
    Route {
        path: "/v1/messages/{id}",
        need: Need::Own,
        name: "message",
        about: "Everything about one message.",
        answer: Shape::Json(of::<MessageView>),
        parse: input::message,
        ..BASE
    },
    Route {
        path: "/v1/messages/{id}/logs",
        need: Need::Own,
        name: "logs",
        about: "What its attempts printed.",
        query: &[Query {
            name: "follow",
            kind: "boolean",
            about: "Go on until the message is final; default false.",
        }],
        answer: Shape::Lines(of::<LogLine>),
        parse: input::logs,
        ..BASE
    },
    Route {
        path: "/v1/messages/{id}/why",
        need: Need::Own,
        name: "why",
        about: "Why it is not running yet, in a sentence.",
        answer: Shape::Json(of::<WhyView>),
        parse: input::why,
        ..BASE
    },
    Route {
        path: "/v1/messages/{id}/cancel",
        need: Need::Own,
        name: "cancel",
        about: "End it, whether it waits or runs.",
        parse: input::cancel,
        ..POST
    },
    Route {
        path: "/v1/messages/{id}/retry",
        need: Need::Own,
        name: "retry",
        about: "Put a message that is final back into its queue, as a new life of the same id.",
        parse: input::retry,
        ..POST
    },
    Route {
        path: "/v1/messages",
        need: Need::Read,
        name: "list",
        about: "Messages, newest first.",
        query: &[
            Query { name: "state", kind: "string", about: "Comma-separated state names." },
            Query { name: "task", kind: "string", about: "Only this task." },
            Query { name: "queue", kind: "string", about: "Only this queue." },
            Query {
                name: "since",
                kind: "integer",
                about: "Only those enqueued at or after this time, milliseconds since the epoch.",
            },
            Query { name: "limit", kind: "integer", about: "At most this many, 1 to 10,000; default 100." },
        ],
        answer: Shape::Json(of::<Vec<MessageView>>),
        parse: input::list,
        ..BASE
    },
    Route {
        path: "/v1/dead",
        need: Need::Read,
        name: "dead",
        about: "Messages that were given up on, the latest accepted first.",
        query: dead::QUERY,
        answer: Shape::Json(of::<Vec<MessageView>>),
        parse: dead::list,
        ..BASE
    },
    Route {
        path: "/v1/dead/export",
        need: Need::Read,
        name: "dead_export",
        about: "The same as messages that can be imported, the oldest first; all of them without a limit.",
        query: dead::QUERY,
        answer: Shape::Lines(of::<Exported>),
        parse: dead::export,
        ..BASE
    },
    Route {
        path: "/v1/dead/retry",
        name: "dead_retry",
        about: "A new life for dead letters, by id or by filter; `dry` only counts them.",
        body: body::<DeadBody>(BULK, false),
        answer: Shape::Json(of::<DeadDone>),
        parse: dead::retry,
        ..POST
    },
    Route {
        path: "/v1/dead/purge",
        name: "dead_purge",
        about: "Forget dead letters, by id or by filter; `dry` only counts them.",
        body: body::<DeadBody>(BULK, false),
        answer: Shape::Json(of::<DeadDone>),
        parse: dead::purge,
        ..POST
    },
    Route {
        path: "/v1/workflows",
        need: Need::Enqueue,
        name: "launch",
        about: "Launch a chain, a group, a chord, a graph of steps, or a workflow that the config declares.",
        body: body::<WorkflowBody>(BULK, false),
        answer: Shape::Json(of::<LaunchedView>),
        parse: input::launch,
        ..POST
    },
    Route {
        path: "/v1/workflows",
        need: Need::Read,
        name: "workflows",
        about: "The workflows that the config declares.",
        answer: Shape::Json(of::<Vec<DeclaredView>>),
        parse: input::workflows,
        ..BASE
    },
    Route {
        path: "/v1/workflows/{id}",
        need: Need::Own,
        name: "show",
        about: "A workflow (by its id or that of one of its messages) with the states of its steps, a part at a time.",
        query: &[
            Query { name: "from", kind: "integer", about: "From the step of this number on; default 0." },
            Query {
                name: "limit",
                kind: "integer",
                about: "At most this many steps, 1 to 1,000; default 1,000.",
            },
            Query {
                name: "results",
                kind: "boolean",
                about: "Only the steps whose results are the workflow's, with their outcomes, at most 100.",
            },
        ],
        answer: Shape::Json(of::<WorkflowView>),
        parse: input::show,
        ..BASE
    },
    Route {
        path: "/v1/workflows/{id}/cancel",
        need: Need::Own,
        name: "cancel_workflow",
        about: "End everything of a workflow that is not over.",
        parse: input::cancel_workflow,
        ..POST
    },
    Route {
        path: "/v1/workflows/{id}/retry",
        need: Need::Own,
        name: "retry_workflow",
        about: "Begin everything of a workflow anew that failed or did not run because of that.",
        parse: input::retry_workflow,
        ..POST
    },
    Route {
        path: "/v1/status",
        need: Need::Read,
        name: "status",
        about: "This node, its pools and counts.",
        answer: Shape::Json(of::<StatusView>),
        parse: input::status,
        ..BASE
    },
    Route {
        path: "/v1/queues",
        need: Need::Read,
        name: "queues",
        about: "Every queue.",
        answer: Shape::Json(of::<Vec<QueueView>>),
        parse: input::queues,
        ..BASE
    },
    Route {
        path: "/v1/tasks",
        need: Need::Read,
        name: "tasks",
        about: "Every declared task.",
        answer: Shape::Json(of::<Vec<TaskView>>),
        parse: input::tasks,
        ..BASE
    },
    Route {
        path: "/v1/tasks/{task}/rate",
        need: Need::Read,
        name: "task_rate",
        about: "How often its messages start at most.",
        answer: Shape::Json(of::<RateView>),
        parse: input::task_rate,
        ..BASE
    },
    Route {
        path: "/v1/tasks/{task}/rate",
        name: "set_task_rate",
        about: "Change that: until the next reload or restart, or for good.",
        body: body::<RateBody>(SMALL, false),
        answer: Shape::Json(of::<RateView>),
        parse: input::set_task_rate,
        ..POST
    },
    Route {
        path: "/v1/queues/{queue}/rate",
        need: Need::Read,
        name: "queue_rate",
        about: "How often its messages start at most.",
        answer: Shape::Json(of::<RateView>),
        parse: input::queue_rate,
        ..BASE
    },
    Route {
        path: "/v1/queues/{queue}/rate",
        name: "set_queue_rate",
        about: "Change that: until the next reload or restart, or for good.",
        body: body::<RateBody>(SMALL, false),
        answer: Shape::Json(of::<RateView>),
        parse: input::set_queue_rate,
        ..POST
    },
    Route {
        path: "/v1/queues/{queue}/pause",
        name: "pause",
        about: "Take nothing more off this queue until it is resumed; survives restarts.",
        parse: input::pause,
        ..POST
    },
    Route {
        path: "/v1/queues/{queue}/resume",
        name: "resume",
        about: "Take messages off this queue again.",
        parse: input::resume,
        ..POST
    },
    Route {
        path: "/v1/queues/{queue}/purge",
        name: "purge",
        about: "Revoke everything that waits or is scheduled in this queue.",
        parse: input::purge,
        ..POST
    },
    Route {
        path: "/v1/schedules",
        need: Need::Read,
        name: "schedules",
        about: "Every declared schedule.",
        answer: Shape::Json(of::<Vec<ScheduleView>>),
        parse: input::schedules,
        ..BASE
    },
    Route {
        path: "/v1/schedules/next",
        need: Need::Read,
        name: "next",
        about: "The next planned times of all schedules that fire.",
        query: PLANNED,
        answer: Shape::Json(of::<Vec<PlannedView>>),
        parse: input::planned,
        ..BASE
    },
    Route {
        path: "/v1/schedules/{name}/next",
        need: Need::Read,
        name: "next_of_schedule",
        about: "The next planned times of a schedule; `held_back` says why it lets them pass, if it does.",
        query: PLANNED,
        answer: Shape::Json(of::<Vec<PlannedView>>),
        parse: input::planned_of,
        ..BASE
    },
    Route {
        path: "/v1/schedules/{name}/run",
        need: Need::Enqueue,
        name: "run_schedule",
        about: "Enqueue the task, or launch the workflow, of a schedule, now and beside its plan.",
        body: body::<RunBody>(SMALL, true),
        answer: Shape::Json(of::<Vec<Enqueued>>),
        parse: input::run_schedule,
        ..POST
    },
    Route {
        path: "/v1/schedules/{name}/pause",
        name: "pause_schedule",
        about: "Let planned times of a schedule pass until it is resumed; survives restarts.",
        parse: input::pause_schedule,
        ..POST
    },
    Route {
        path: "/v1/schedules/{name}/resume",
        name: "resume_schedule",
        about: "Go on with what is planned from now on; failures in a row are forgotten.",
        parse: input::resume_schedule,
        ..POST
    },
    Route {
        path: "/v1/schedules/{name}/rewind",
        name: "rewind_schedule",
        about: "Forget that a schedule fired after a time, so that catch_up applies from there.",
        body: body::<RewindBody>(SMALL, false),
        parse: input::rewind_schedule,
        ..POST
    },
    Route {
        path: "/v1/notify",
        name: "notify",
        about: "Tell everybody who is told of this task that this is a test.",
        body: body::<NotifyBody>(SMALL, false),
        answer: Shape::Json(of::<Vec<Enqueued>>),
        parse: input::notify,
        ..POST
    },
    Route {
        path: "/v1/reload",
        name: "reload",
        about: "Read and check the config again, and use it if it has no fault.",
        body: body::<ReloadBody>(SMALL, true),
        parse: input::reload,
        ..POST
    },
    Route {
        path: "/v1/drain",
        name: "drain",
        about: "Take nothing new off any queue until a restart, or take that back.",
        body: body::<DrainBody>(SMALL, true),
        parse: input::drain,
        ..POST
    },
    Route {
        path: "/v1/stop",
        name: "stop",
        about: "Shut down; the connection is kept open until the daemon is gone.",
        body: body::<StopBody>(SMALL, true),
        parse: input::stop,
        ..POST
    },
    Route {
        path: "/v1/store/verify",
        name: "verify",
        about: "Check the store's integrity.",
        parse: input::verify,
        ..POST
    },
    Route {
        path: "/v1/store/backup",
        name: "backup",
        about: "A consistent copy of the store as it is now, in pieces, while it is in use.",
        answer: Shape::Lines(of::<BackupPiece>),
        parse: input::backup,
        ..BASE
    },
    Route {
        path: "/v1/store/export",
        name: "export",
        about: "Every message that is not final. Workflows are not exported: while one is not over it is refused.",
        query: &[Query {
            name: "leave_workflows",
            kind: "boolean",
            about: "Export also where workflows are not over: their messages, without what is to follow these.",
        }],
        answer: Shape::Lines(of::<Exported>),
        parse: input::export,
        ..BASE
    },
    Route {
        path: "/v1/store/import",
        name: "import",
        about: "Take over exported messages; ids that are known are left as they are.",
        body: body::<Vec<Exported>>(BULK, false),
        parse: input::import,
        ..POST
    },
];
