//! `taskd dead`: messages that were given up on.

use std::collections::VecDeque;
use std::time::Duration;

use clap::Subcommand;

use crate::control::api::{DeadBody, DeadDone, LogLine, MessageView, count};
use crate::control::client::{Client, ClientError};
use crate::control::route::Method;
use crate::model::state::State;

use super::output::{self, Ending, Failure};
use super::table::{Column, render};
use super::{Context, body_of, checked, moment, parse, status};

/// How long a bulk may take beyond `--timeout`: a hundred thousand letters are some seconds of work.
const BULK: Duration = Duration::from_secs(600);

/// Lines of output that `show` prints.
const LAST: usize = 20;

/// Options of `taskd dead`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd dead list
  taskd dead show 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f
  taskd dead retry --task 'shop.*' --since 1d --yes

A message is DEAD when three attempts of it ended with the child that ran them. It is kept with its arguments
for [dead] expires. With --failed the same commands are about messages that failed (FAILURE) too.

EXIT CODES
  0    done
  64   the command line cannot be understood
  69   no such message; taskd is not running
  73   not possible in this state; nothing was done because --yes is missing
  75   not now; try again
  77   not permitted: needs [access] read, to change anything [access] admin")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List dead letters, the latest accepted first
    #[command(after_help = "\
EXAMPLES
  taskd dead list
  taskd dead list --failed --task 'shop.*' --since 1d
  taskd dead list --cause worker_lost --json | jq -r '.[].id'

EXIT CODES
  0    printed, even if there are none
  64   a time or a name cannot be understood
  69   taskd is not running
  75   not now; try again
  77   not permitted: needs [access] read")]
    List {
        /// Which.
        #[command(flatten)]
        filter: Filter,
        /// At most this many [default: 100]
        #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: Option<u32>,
    },
    /// Show one dead letter: arguments, attempts, why it ended, its last lines
    #[command(after_help = "\
EXAMPLES
  taskd dead show 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f

EXIT CODES
  0    printed
  69   no such message; taskd is not running
  73   it is no dead letter
  75   not now; try again
  77   not permitted: not one's own message, and no [access] read")]
    Show {
        /// The message
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Put dead letters back into their queues
    #[command(after_help = "\
EXAMPLES
  taskd dead retry 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f
  taskd dead retry --task send_email --since 1h --yes --delay 10m
  taskd dead retry --yes --queue mail --to-queue slow

Each keeps its id and begins a new life: its counts of attempts, losses and retries start at zero. One of a
unique task whose key another message holds stays dead, and is named. Without ids it counts what it would do
and does nothing unless --yes is given. Work goes on meanwhile; a bulk that breaks off may be repeated.

EXIT CODES
  0    done, or nothing matches
  64   the command line cannot be understood
  69   an id is no dead letter; no such queue; taskd is not running
  73   nothing was done because --yes is missing; some stay dead because their key is held
  75   not now; try again
  77   not permitted: needs [access] admin")]
    Retry {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// Run them this long from now, not before
        #[arg(long, value_name = "DURATION", value_parser = moment::duration)]
        delay: Option<Duration>,
        /// Put them into this queue instead of their own
        #[arg(long, value_name = "QUEUE")]
        to_queue: Option<String>,
    },
    /// Forget dead letters
    #[command(after_help = "\
EXAMPLES
  taskd dead purge 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f
  taskd dead purge --until 7d --yes

Their arguments and results are gone then; `taskd dead export` saves them before. Without ids it counts what
it would do and does nothing unless --yes is given.

EXIT CODES
  0    done, or nothing matches
  64   the command line cannot be understood
  69   an id is no dead letter; taskd is not running
  73   nothing was done because --yes is missing
  75   not now; try again
  77   not permitted: needs [access] admin")]
    Purge {
        /// Which.
        #[command(flatten)]
        which: Which,
    },
    /// Print dead letters as `store export` does, for `store import`
    #[command(after_help = "\
EXAMPLES
  taskd dead export > dead.ndjson && taskd dead purge --yes
  taskd dead export --task 'shop.*' | taskd store import - --socket /run/other/taskd.sock

What is imported begins a new life. All that match are printed, the oldest first.

EXIT CODES
  0    all of them are printed
  64   a time or a name cannot be understood
  69   taskd is not running
  75   it broke off: what was printed is not all
  77   not permitted: needs [access] read")]
    Export {
        /// Which.
        #[command(flatten)]
        filter: Filter,
    },
}

/// Which dead letters.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Filter {
    /// Those that failed (FAILURE) too
    #[arg(long)]
    pub failed: bool,
    /// Only this task; a pattern as 'shop.*' takes several
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Only this queue
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<String>,
    /// Only those that ended since this time, or in the last DURATION
    #[arg(long, value_name = "DURATION|TIME")]
    pub since: Option<String>,
    /// Only those that ended before this time, or more than DURATION ago
    #[arg(long, value_name = "DURATION|TIME")]
    pub until: Option<String>,
    /// Only those that ended for this cause, as worker_lost, or with an error of this class
    #[arg(long, value_name = "CAUSE")]
    pub cause: Option<String>,
}

/// Which dead letters of a bulk.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Which {
    /// The messages; without any all that match
    #[arg(value_name = "ID", conflicts_with_all = ["task", "queue", "since", "until", "cause", "limit"])]
    pub ids: Vec<String>,
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// At most this many, the oldest first
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Do it
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command.
///
/// # Errors
/// What taskd, the connection or the command line says.
pub fn run(args: Args, context: &Context) -> Ending {
    let now = moment::now();
    match args.command {
        Command::List { filter, limit } => {
            let mut path = path("/v1/dead", &body(&filter, now)?);
            if let Some(limit) = limit {
                path.push_str(&format!("&limit={limit}"));
            }
            context.block_on(list(&path, limit.unwrap_or(100), now, context))
        }
        Command::Show { id } => context.block_on(show(checked("id", &id)?, now, context)),
        Command::Retry { which, delay, to_queue } => {
            if let Some(queue) = &to_queue {
                checked("queue", queue)?;
            }
            let mut body = bulk(&which, now)?;
            body.delay_ms = delay.map(moment::millis);
            body.to_queue = to_queue;
            context.block_on(order("/v1/dead/retry", body, which.yes, context))
        }
        Command::Purge { which } => {
            let body = bulk(&which, now)?;
            context.block_on(order("/v1/dead/purge", body, which.yes, context))
        }
        Command::Export { filter } => {
            let path = path("/v1/dead/export", &body(&filter, now)?);
            context.block_on(export(&path, context))
        }
    }
}

/// What a filter asks for.
fn body(filter: &Filter, now: i64) -> Result<DeadBody, Failure> {
    let zone = moment::zone(None).map_err(Failure::usage)?;
    let time = |option: &str, text: &Option<String>| -> Result<Option<i64>, Failure> {
        let Some(text) = text else { return Ok(None) };
        let at = moment::moment_or_before(text, &zone, now);
        at.map(Some).map_err(|why| Failure::usage(format!("{option}: {why}")))
    };
    if let Some(task) = &filter.task {
        checked("task name", &task.replace(['*', '?'], "x"))?;
    }
    if let Some(queue) = &filter.queue {
        checked("queue", queue)?;
    }
    if let Some(cause) = &filter.cause {
        checked("cause", cause)?;
    }
    Ok(DeadBody {
        failed: filter.failed,
        task: filter.task.clone(),
        queue: filter.queue.clone(),
        since: time("--since", &filter.since)?,
        until: time("--until", &filter.until)?,
        cause: filter.cause.clone(),
        ..DeadBody::default()
    })
}

fn bulk(which: &Which, now: i64) -> Result<DeadBody, Failure> {
    for id in &which.ids {
        checked("id", id)?;
    }
    Ok(DeadBody { ids: which.ids.clone(), limit: which.limit, ..body(&which.filter, now)? })
}

/// The request's path. Of what can stand in its values, only the signs of a pattern need encoding.
fn path(of: &str, body: &DeadBody) -> String {
    let mut path = format!("{of}?failed={}", body.failed);
    for (key, value) in [("task", &body.task), ("queue", &body.queue), ("cause", &body.cause)] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", value.replace('?', "%3F").replace('*', "%2A")));
        }
    }
    for (key, value) in [("since", body.since), ("until", body.until)] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={value}"));
        }
    }
    path
}

async fn list(path: &str, most: u32, now: i64, context: &Context) -> Ending {
    let answer = context.client().text(Method::Get, path, None, true, Duration::ZERO).await?;
    let mut rows = 0;
    context.show(&answer, |letters: &Vec<MessageView>| {
        rows = letters.len();
        table(letters, now)
    })?;
    if rows == most as usize {
        output::note(format_args!("there may be more than these {most}; --limit shows up to 10000"));
    }
    Ok(0)
}

/// The table.
#[must_use]
pub fn table(letters: &[MessageView], now: i64) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let rows = letters.iter().map(|m| {
        vec![
            m.id.clone(),
            m.state.to_string(),
            m.task.clone(),
            m.outcome.as_ref().map(|o| o.reason()).unwrap_or_default(),
            moment::relative(m.finished.unwrap_or(m.enqueued), now),
        ]
    });
    let columns = [
        Column::Whole("ID"),
        Column::Whole("STATE"),
        Column::Text("TASK"),
        Column::Text("CAUSE"),
        Column::Whole("ENDED"),
    ];
    render(&columns, rows.collect())
}

async fn show(id: &str, now: i64, context: &Context) -> Ending {
    let mut client = context.client();
    let answer = client.text(Method::Get, &format!("/v1/messages/{id}"), None, true, Duration::ZERO).await?;
    let view: MessageView = parse(&answer)?;
    if !matches!(view.state, State::Dead | State::Failure) {
        let failure = Failure::no_output(format!("{id} is {}, no dead letter", view.state));
        return Err(failure.hint(format!("taskd status {id}")));
    }
    if context.json {
        output::json(&answer)?;
        return Ok(0);
    }
    let zone = moment::zone(None).map_err(Failure::usage)?;
    let mut text = status::message(&view, now, &zone);
    let (lines, more) = last_lines(&mut client, id).await?;
    if !lines.is_empty() {
        text.push_str(if more { "\nIts last lines (taskd logs shows all):\n" } else { "\nIts output:\n" });
        for line in lines {
            text.push_str(&format!("  {}\n", output::clean(&line.line)));
        }
    }
    let failed = if view.state == State::Failure { " --failed" } else { "" };
    text.push_str(&format!("\nTo run it again: taskd dead retry{failed} {id}\n"));
    output::print(&text)?;
    Ok(0)
}

/// The last lines of a message's output, and whether there were more.
async fn last_lines(client: &mut Client, id: &str) -> Result<(VecDeque<LogLine>, bool), Failure> {
    let mut lines = client.lines(&format!("/v1/messages/{id}/logs")).await?;
    let (mut kept, mut more) = (VecDeque::new(), false);
    while let Some(line) = lines.next().await? {
        kept.push_back(parse::<LogLine>(line.as_bytes())?);
        if kept.len() > LAST {
            kept.pop_front();
            more = true;
        }
    }
    Ok((kept, more))
}

async fn order(path: &str, mut body: DeadBody, yes: bool, context: &Context) -> Ending {
    let mut client = context.client();
    body.dry = body.ids.is_empty() && !yes;
    let answer = client.text(Method::Post, path, Some(body_of(&body)?), false, BULK).await?;
    let done: DeadDone = parse(&answer)?;
    context.show(&answer, words)?;
    if done.dry && done.matched > 0 {
        return Err(Failure::no_output("nothing was done because --yes is missing"));
    }
    Ok(match (done.missing.is_empty(), done.held_count) {
        (false, _) => 69,
        (true, 1..) => 73,
        _ => 0,
    })
}

/// A bulk's sentence, and what kinds of letters it meant.
fn words(done: &DeadDone) -> String {
    let mut text = format!("{}\n", output::clean(&done.message));
    for kind in &done.kinds {
        let cause = if kind.cause.is_empty() { "no cause is kept" } else { &kind.cause };
        text.push_str(&format!(
            "  {} {} of {} ({})\n",
            kind.count,
            kind.state,
            output::clean(&kind.task),
            output::clean(cause)
        ));
    }
    if done.others > 0 {
        text.push_str(&format!("  {} of other kinds\n", done.others));
    }
    for id in &done.missing {
        text.push_str(&format!("  {}: no dead letter\n", output::clean(id)));
    }
    for held in &done.held {
        let (id, holder) = (output::clean(&held.id), output::clean(&held.holder));
        text.push_str(&format!("  {id} stays: {holder} holds its key (unique)\n"));
    }
    let unnamed = done.held_count.saturating_sub(done.held.len() as u64);
    if unnamed > 0 {
        text.push_str(&format!("  {unnamed} more stay for the same reason\n"));
    }
    text
}

async fn export(path: &str, context: &Context) -> Ending {
    let mut client = context.client();
    let mut lines = client.lines(path).await?;
    let mut exported = 0_u64;
    let broke_off =
        |e: ClientError, n| Failure::from(e).context(format_args!("the export broke off after {n}"));
    while let Some(line) = lines.next().await.map_err(|e| broke_off(e, exported))? {
        output::json(line.as_bytes())?;
        exported += 1;
    }
    output::note(format_args!("{} exported", count(exported, "dead letter")));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::{DeadHeld, DeadKind};

    #[test]
    fn filters_become_a_query() {
        let filter = Filter {
            failed: true,
            task: Some("shop.*".into()),
            since: Some("1h".into()),
            cause: Some("worker_lost".into()),
            ..Filter::default()
        };
        let asked = body(&filter, 3_600_500).unwrap();
        let path = path("/v1/dead", &asked);
        assert_eq!(path, "/v1/dead?failed=true&task=shop.%2A&cause=worker_lost&since=500");
        for wrong in [
            Filter { task: Some("a&b".into()), ..Filter::default() },
            Filter { until: Some("soon".into()), ..Filter::default() },
        ] {
            assert_eq!(body(&wrong, 0).unwrap_err().code(), 64);
        }
    }

    #[test]
    fn a_bulk_says_what_it_meant() {
        let kind = |task: &str, cause: &str, count| DeadKind {
            state: State::Dead,
            task: task.into(),
            cause: cause.into(),
            count,
        };
        let done = DeadDone {
            message: "3 dead letters put back into their queues".into(),
            matched: 5,
            done: 3,
            kinds: vec![kind("mail", "worker_lost", 4), kind("old", "", 1)],
            missing: vec!["m9".into()],
            held: vec![DeadHeld { id: "m1".into(), holder: "m2".into() }],
            held_count: 2,
            ..DeadDone::default()
        };
        assert_eq!(
            words(&done),
            "3 dead letters put back into their queues\n  4 DEAD of mail (worker_lost)\n  \
             1 DEAD of old (no cause is kept)\n  m9: no dead letter\n  m1 stays: m2 holds its key (unique)\n  \
             1 more stay for the same reason\n"
        );
    }
}
