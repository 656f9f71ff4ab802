//! `taskd list`: messages, newest first.

use std::time::Duration;

use crate::control::api::MessageView;
use crate::control::route::Method;
use crate::model::state::{self, State};

use super::output::{self, Ending, Failure};
use super::table::{Column, render};
use super::{Context, checked, moment};

/// Options of `taskd list`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd list
  taskd list --state failure,dead --since 1d
  taskd list --task send_email -n 20 --json

STATES
  scheduled, waiting, running, retry; final: success, failure, revoked, expired, dead

EXIT CODES
  0    printed, even if there are none
  64   no such state; a time cannot be understood
  69   taskd is not running
  75   not now; try again
  77   not permitted: needs [access] read")]
pub struct Args {
    /// Only these states
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<String>,
    /// Only this task
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Only this queue
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<String>,
    /// Only those enqueued since this time, or in the last DURATION
    #[arg(long, value_name = "DURATION|TIME")]
    pub since: Option<String>,
    /// At most this many [default: 100]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: Option<u32>,
}

const LIMIT: u32 = 100;

/// Runs the command.
///
/// # Errors
/// What taskd, the connection or the command line says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let now = moment::now();
    let path = path(args, now)?;
    let most = args.limit.unwrap_or(LIMIT);
    context.block_on(async {
        let answer = context.client().text(Method::Get, &path, None, true, Duration::ZERO).await?;
        let mut rows = 0;
        context.show(&answer, |messages: &Vec<MessageView>| {
            rows = messages.len();
            text(messages, now)
        })?;
        if rows == most as usize {
            output::note(format_args!("there may be more than these {most}; --limit shows up to 10000"));
        }
        Ok(0)
    })
}

/// The request's path. Every value in it has been checked to need no encoding.
fn path(args: &Args, now: i64) -> Result<String, Failure> {
    let mut path = format!("/v1/messages?limit={}", args.limit.unwrap_or(LIMIT));
    let mut states = Vec::new();
    for name in args.state.iter().map(|s| s.trim()).filter(|s| !s.is_empty()) {
        let Some(state) = State::parse(name) else {
            let all: Vec<&str> = state::ALL.iter().map(|s| s.name()).collect();
            let near = all.iter().find(|s| strsim::damerau_levenshtein(s, &name.to_uppercase()) <= 2);
            let hint = match near {
                Some(near) => format!("did you mean {near}?"),
                None => format!("states: {}", all.join(", ")),
            };
            return Err(Failure::usage(format!("--state: there is no state {name:?}")).hint(hint));
        };
        states.push(state.name());
    }
    if !states.is_empty() {
        path.push_str(&format!("&state={}", states.join(",")));
    }
    if let Some(task) = &args.task {
        path.push_str(&format!("&task={}", checked("task name", task)?));
    }
    if let Some(queue) = &args.queue {
        path.push_str(&format!("&queue={}", checked("queue", queue)?));
    }
    if let Some(since) = &args.since {
        let zone = moment::zone(None).map_err(Failure::usage)?;
        let since = moment::moment_or_before(since, &zone, now)
            .map_err(|why| Failure::usage(format!("--since: {why}")))?;
        path.push_str(&format!("&since={since}"));
    }
    Ok(path)
}

/// The table.
#[must_use]
pub fn text(messages: &[MessageView], now: i64) -> String {
    if messages.is_empty() {
        return "no messages\n".to_owned();
    }
    let rows = messages.iter().map(|m| {
        let due = m.due.filter(|_| !m.state.is_final());
        let at = m.finished.or(m.started.filter(|_| m.state == State::Running)).or(due);
        vec![
            m.id.clone(),
            m.state.to_string(),
            m.schedule.as_ref().map_or_else(|| m.task.clone(), |s| format!("{} ({s})", m.task)),
            moment::relative(at.unwrap_or(m.enqueued), now),
        ]
    });
    let columns = [Column::Whole("ID"), Column::Whole("STATE"), Column::Text("TASK"), Column::Whole("WHEN")];
    render(&columns, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: State, times: serde_json::Value) -> MessageView {
        let mut json = serde_json::json!({
            "id": "0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f", "task": "send_email", "queue": "mail",
            "state": state, "priority": 0, "attempt": 1, "retries": 0, "losses": 0, "enqueued": 1_000,
        });
        json.as_object_mut().unwrap().extend(times.as_object().unwrap().clone());
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn when_is_the_end_the_start_or_what_is_to_come() {
        let shown = text(
            &[
                message(
                    State::Success,
                    serde_json::json!({"started": 2_000, "finished": 3_000, "due": 9_000}),
                ),
                message(State::Running, serde_json::json!({"started": 2_000, "due": 1_500})),
                message(State::Scheduled, serde_json::json!({"due": 3_661_000})),
                message(State::Waiting, serde_json::json!({})),
            ],
            61_000,
        );
        assert_eq!(
            anstream::adapter::strip_str(&shown).to_string(),
            "\
ID                                    STATE      TASK        WHEN
0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f  SUCCESS    send_email  58s ago
0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f  RUNNING    send_email  59s ago
0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f  SCHEDULED  send_email  in 1h
0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f  WAITING    send_email  1m ago
"
        );
    }

    #[test]
    fn filters_become_a_query() {
        let args = Args {
            state: vec!["Failure".into(), " dead".into(), " ".into()],
            task: Some("a.b".into()),
            since: Some("1h".into()),
            ..Args::default()
        };
        let path = path(&args, 3_600_500).unwrap();
        assert_eq!(path, "/v1/messages?limit=100&state=FAILURE,DEAD&task=a.b&since=500");
        for wrong in [
            Args { state: vec!["failed".into()], ..Args::default() },
            Args { task: Some("a&b".into()), ..Args::default() },
            Args { since: Some("soon".into()), ..Args::default() },
        ] {
            assert_eq!(super::path(&wrong, 0).unwrap_err().code(), 64);
        }
    }
}
