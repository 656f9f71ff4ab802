//! `taskd enqueue`: one message, or many.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use crate::control::api::{Enqueue, Enqueued, MessageView, StepBody};
use crate::control::client::{Client, ClientError};
use crate::control::route::Method;
use crate::model::message::MAX_BYTES;
use crate::model::state::State;

use super::arguments::Arguments;
use super::ndjson::Source;
use super::output::{self, Ending, Failure};
use super::{Context, body_of, checked, ending, follow, moment};

/// Options of `taskd enqueue`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = format!("\
EXAMPLES
  taskd enqueue clean_logs
  taskd enqueue send_email user_id=42 template=welcome --in 10m
  taskd enqueue report 'columns:=[\"name\",\"sum\"]' limit:=100 --at 03:00
  taskd enqueue resize -- photo.jpg 800
  taskd enqueue backup --wait
  taskd enqueue render file=a.svg --link publish --link-error tell_me
  printf '%s\\n' '{{\"task\":\"send_email\",\"kwargs\":{{\"user_id\":7}}}}' | taskd enqueue --batch -

It prints the message's id once taskd has stored the message durably. The id is made here, so that a
request whose connection breaks is repeated safely; repeating a command with its --id is as safe: the answer
is the message that has the id, and a remark on stderr says where that is another call. Where the task is unique
and another message holds its key, that one's id is printed (on_conflict = \"return\"), and --wait waits for it.
With --wait the task's output (of one that a Celery worker runs its result) comes to stdout and stderr as it is printed, and the exit code is the task's.

EXIT CODES
  0        stored
  64       the command line cannot be understood
  65       arguments do not fit the task; too large
  66       a file cannot be read
  69       no such task or queue; taskd is not running
  73       the task is disabled; another message holds its key (on_conflict = \"error\") or its id
  75       the queue is full, or no answer in time; try again
  77       not permitted: needs [access] enqueue, or a place in the task's allow
EXIT CODES WITH --wait
{}", ending::CODES))]
pub struct Args {
    /// The task's name
    #[arg(value_name = "NAME", required_unless_present = "batch", conflicts_with = "batch")]
    pub name: Option<String>,
    /// Its arguments.
    #[command(flatten)]
    pub arguments: Arguments,
    /// Run it this long from now, not before
    #[arg(long = "in", value_name = "DURATION", value_parser = moment::duration)]
    pub delay: Option<Duration>,
    /// Run it at this time: HH:MM (the next one), "YYYY-MM-DD HH:MM", or RFC 3339
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    pub at: Option<String>,
    /// Give it up if it has not started by this time, or this long from now
    #[arg(long, value_name = "DURATION|TIME")]
    pub expires: Option<String>,
    /// The zone of TIME [default: the system's]
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// Another queue than the task's
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<String>,
    /// 0 to 9; 9 goes first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    pub priority: Option<u8>,
    /// The message's id; one that taskd knows already is not enqueued again
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Run this task with its result once it succeeded; may be given more than once
    #[arg(long, value_name = "TASK")]
    pub link: Vec<String>,
    /// Run this task with its id as the first argument when it failed; may be given more than once
    #[arg(long, value_name = "TASK")]
    pub link_error: Vec<String>,
    /// Wait for its end: print its output, exit with its code
    #[arg(long)]
    pub wait: bool,
    /// Enqueue many: one JSON object a line, as POST /v1/messages takes it; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "pairs", "positional", "json_args", "args_file", "delay", "at", "expires", "timezone", "queue",
        "priority", "id", "wait", "link", "link_error",
    ])]
    pub batch: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What taskd, the connection or the command line says.
pub fn run(args: Args, context: &Context) -> Ending {
    if let Some(name) = &args.batch {
        let mut source = Source::open(name)?;
        return context.block_on(batch(&mut source, context));
    }
    let wait = args.wait;
    let message = message(args, moment::now())?;
    context.block_on(async {
        let mut client = context.client();
        let id = single(&mut client, &message, context, wait).await?;
        if wait { wait_for(&mut client, &id, context).await } else { Ok(0) }
    })
}

fn usage(option: &'static str) -> impl Fn(String) -> Failure {
    move |why| Failure::usage(format!("{option}: {why}"))
}

/// The message that a command line asks for, `now` being the wall clock.
///
/// # Errors
/// What of the command line cannot be understood.
pub fn message(args: Args, now: i64) -> Result<Enqueue, Failure> {
    let task = args.name.as_deref().unwrap_or_default();
    let task = checked("task name", task)?.to_owned();
    if let Some(queue) = &args.queue {
        checked("queue", queue)?;
    }
    if let Some(id) = &args.id {
        checked("id", id)?;
    }
    // The zone is read only where a time may need it.
    let zone = if args.at.is_some() || args.expires.is_some() || args.timezone.is_some() {
        Some(moment::zone(args.timezone.as_deref()).map_err(usage("--timezone"))?)
    } else {
        None
    };
    let (mut eta, mut expires) = (None, None);
    if let (Some(at), Some(zone)) = (&args.at, &zone) {
        let at = moment::moment(at, zone, now).map_err(usage("--at"))?;
        if at < now {
            let past = moment::both(at, now, zone);
            return Err(Failure::usage(format!("--at: {past} is past")).hint("without --at it runs now"));
        }
        eta = Some(at);
    }
    if let (Some(text), Some(zone)) = (&args.expires, &zone) {
        let at = moment::moment_or_after(text, zone, now).map_err(usage("--expires"))?;
        let begins = eta.unwrap_or_else(|| {
            now.saturating_add_unsigned(args.delay.map_or(0, moment::millis).min(i64::MAX as u64))
        });
        if at <= begins {
            let at = moment::both(at, now, zone);
            return Err(Failure::usage(format!("--expires: {at} is not after the time it may run")));
        }
        expires = Some(at);
    }
    let values = args.arguments.values()?;
    Ok(Enqueue {
        task,
        id: Some(args.id.unwrap_or_else(new_id)),
        args: values.args,
        kwargs: values.kwargs,
        queue: args.queue,
        priority: args.priority,
        delay_ms: args.delay.map(moment::millis),
        eta,
        expires,
        headers: serde_json::Map::new(),
        link: args.link.into_iter().map(links).collect::<Result<_, _>>()?,
        link_error: args.link_error.into_iter().map(links).collect::<Result<_, _>>()?,
    })
}

/// The step of a link.
fn links(task: String) -> Result<StepBody, Failure> {
    checked("task name", &task)?;
    Ok(StepBody { task, ..StepBody::default() })
}

/// Ordered by time, so that the store's index over ids grows at its end.
pub(super) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// Enqueues one message and prints its id, unless its output follows on stdout.
async fn single(
    client: &mut Client,
    message: &Enqueue,
    context: &Context,
    wait: bool,
) -> Result<String, Failure> {
    let id = message.id.clone().unwrap_or_default();
    let body = body_of(message)?;
    if body.len() > MAX_BYTES {
        return Err(Failure::data(format!(
            "the message has {} bytes, more than the {MAX_BYTES} that fit",
            body.len()
        ))
        .hint("pass large data as a file, and its name as the argument"));
    }
    let answer = client.call(Method::Post, "/v1/messages", Some(body), true).await;
    let enqueued: Vec<Enqueued> = answer.map_err(|e| {
        let unclear = matches!(e, ClientError::Broken(_) | ClientError::Timeout(_));
        let failure = Failure::from(e);
        if unclear {
            failure.hint(format!("whether it was stored is not known; repeat it with --id {id}"))
        } else {
            failure
        }
    })?;
    let Some(first) = enqueued.first() else {
        return Err(ClientError::Strange("no message in the answer".to_owned()).into());
    };
    remark(first);
    if !wait {
        show(std::slice::from_ref(first), context)?;
    }
    Ok(first.id.clone())
}

/// What there is to say of a message that was not simply stored.
fn remark(one: &Enqueued) {
    let (id, state) = (&one.id, one.state);
    if one.differs {
        output::note(format_args!(
            "{id} was enqueued before as another call, which stays as it is ({state}); nothing was stored"
        ));
    } else if one.known {
        output::note(format_args!("{id} was enqueued before; it is {state}"));
    } else if one.unique {
        output::note(format_args!("not enqueued: the task is unique, and {id} ({state}) holds the key"));
    } else if let Some(old) = &one.replaced {
        output::note(format_args!("{old} had the same key and waited; it is REVOKED"));
    }
}

fn show(enqueued: &[Enqueued], context: &Context) -> Result<(), Failure> {
    let mut text = String::new();
    for one in enqueued {
        if context.json {
            text.push_str(&serde_json::to_string(one).map_err(|e| Failure::internal(e.to_string()))?);
        } else {
            text.push_str(&one.id);
        }
        text.push('\n');
    }
    output::print(&text)
}

/// Prints a message's output until its end, and ends as it did.
pub(super) async fn wait_for(client: &mut Client, id: &str, context: &Context) -> Ending {
    let waiting = async {
        if !context.json {
            follow::print(client, id, true, follow::To::Both).await?;
        }
        follow::until_final(client, id).await
    };
    let (answer, view) = within(context, id, waiting).await?;
    if let Some(dropped) = ending::dropped(&view).filter(|_| !context.json) {
        output::note(dropped);
    }
    if context.json {
        output::json(&answer)?;
    } else if is_elsewhere(&view) {
        // It printed nothing here: what there is of it is its result.
        super::result::show(&answer, &view, context)?;
    } else if let Some(sentence) = ending::sentence(&view) {
        output::note(sentence);
    }
    Ok(ending::exit_code(&view))
}

/// Whether it ended without having been started by taskd: a Celery worker ran it.
fn is_elsewhere(view: &MessageView) -> bool {
    let ran = matches!(view.state, State::Success | State::Failure);
    ran && view.attempt > 0 && view.outcome.as_ref().is_some_and(|outcome| outcome.started.is_none())
}

/// The end of a wait, within `--timeout` if it was given.
///
/// # Errors
/// Those of the wait; the bound passed.
pub async fn within<T>(
    context: &Context,
    id: &str,
    waiting: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(bound) = context.timeout else { return waiting.await };
    timeout(bound, waiting).await.unwrap_or_else(|_| {
        let bound = humantime::format_duration(bound);
        Err(Failure::later(format!("{id} is not final after {bound}; it goes on"))
            .hint(format!("taskd result {id} --wait")))
    })
}

async fn batch(source: &mut Source, context: &Context) -> Ending {
    let mut client = context.client();
    while let Some(mut batch) = source.batch::<Enqueue>()? {
        for message in &mut batch.items {
            message.id.get_or_insert_with(new_id);
        }
        let body = body_of(&batch.items)?;
        let answer = client.call(Method::Post, "/v1/messages", Some(body), true).await;
        let enqueued: Vec<Enqueued> = answer.map_err(|e| {
            Failure::from(e).context(format_args!("{} and what follows", source.place(&batch)))
        })?;
        // Of messages whose ids were made here, none was known before; a repeat of the request is no news.
        enqueued.iter().filter(|one| one.differs || one.unique || one.replaced.is_some()).for_each(remark);
        show(&enqueued, context)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    const NOW: i64 = 1_774_695_600_000;

    fn read(line: &[&str]) -> Result<Enqueue, u8> {
        let line = ["taskd", "enqueue"].iter().chain(line);
        let cli = Cli::try_parse_from(line).map_err(|_| 64_u8)?;
        let Command::Enqueue(args) = cli.command else { panic!("another command") };
        message(args, NOW).map_err(|f| f.code())
    }

    #[test]
    fn a_whole_command_line() {
        let m = read(&[
            "mail",
            "a=1",
            "b:=2",
            "--in",
            "10m",
            "--expires",
            "1h",
            "--queue",
            "q",
            "--priority",
            "9",
            "--id",
            "i-1",
            "--",
            "x",
            "--y",
        ])
        .unwrap();
        assert_eq!((m.task.as_str(), m.id.as_deref()), ("mail", Some("i-1")));
        assert_eq!(serde_json::Value::Object(m.kwargs), serde_json::json!({"a": "1", "b": 2}));
        assert_eq!(m.args, ["x", "--y"]);
        assert_eq!((m.delay_ms, m.eta, m.expires), (Some(600_000), None, Some(NOW + 3_600_000)));
        assert_eq!((m.queue.as_deref(), m.priority), (Some("q"), Some(9)));
    }

    #[test]
    fn ids_are_made_here_and_never_twice() {
        let ids: Vec<String> = (0..3).map(|_| read(&["mail"]).unwrap().id.unwrap()).collect();
        assert!(ids.is_sorted() && ids.windows(2).all(|w| w[0] != w[1]));
        assert_eq!(uuid::Uuid::parse_str(&ids[0]).unwrap().get_version_num(), 7);
    }

    #[test]
    fn times_have_zones() {
        let m = read(&["mail", "--at", "2026-12-24 18:00", "--timezone", "Asia/Shanghai"]).unwrap();
        assert_eq!(m.eta, Some(1_798_106_400_000));
        let m = read(&["mail", "--at", "2026-12-24T10:00:00Z", "--expires", "2026-12-24T10:00:01Z"]).unwrap();
        assert_eq!((m.eta, m.expires), (Some(1_798_106_400_000), Some(1_798_106_401_000)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            &["mail", "--priority", "10"][..],
            &["mail", "--in", "10m", "--at", "12:00"],
            &["mail", "--in", "1M"],
            &["mail", "--at", "2020-01-01 10:00"],
            &["mail", "--at", "soon"],
            &["mail", "--timezone", "Mars/Base"],
            &["mail", "--expires", "5m", "--in", "10m"],
            &["mail", "--batch", "-"],
            &["--batch", "-", "--wait"],
            &["mail", "--json-args", "{}", "--args-file", "x"],
            &["../mail"],
            &["mail", "--queue", "a b"],
            &["mail", "--id", ""],
            &["mail", "plain"],
            &[],
        ] {
            assert_eq!(read(line), Err(64), "{line:?}");
        }
    }
}
