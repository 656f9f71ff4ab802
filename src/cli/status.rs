//! `taskd status`: this node, or one message.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::control::api::{ChildView, MessageView, NodeView, SchedulesView, StatusView, UniqueView};
use crate::control::route::Method;
use crate::model::state::State;
use crate::model::unique::Holds;

use super::output::{self, BOLD, Ending, Failure, RESET, YELLOW, clean};
use super::table::{Column, pairs, render, size};
use super::{Context, checked, moment};

/// So many children are shown.
const CHILDREN: usize = 32;

/// Options of `taskd status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd status
  taskd status 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f
  taskd status --json | jq .counts.waiting
  taskd status --json | jq '.nodes[] | {name, state}'

EXIT CODES
  0    printed
  69   no such message; taskd is not running
  75   not now; try again
  77   not permitted: needs [access] read, or one's own message")]
pub struct Args {
    /// A message; without one, this node and those that share its broker
    #[arg(value_name = "ID")]
    pub id: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let path = match &args.id {
        Some(id) => format!("/v1/messages/{}", checked("id", id)?),
        None => "/v1/status".to_owned(),
    };
    context.block_on(async {
        let answer = context.client().text(Method::Get, &path, None, true, Duration::ZERO).await?;
        let (now, zone) = (moment::now(), moment::zone(None).map_err(Failure::internal)?);
        if args.id.is_some() {
            context.show(&answer, |view: &MessageView| message(view, now, &zone))?;
        } else {
            context.show(&answer, |view: &StatusView| node(view, now, &zone))?;
        }
        Ok(0)
    })
}

/// This node.
#[must_use]
pub fn node(view: &StatusView, now: i64, zone: &TimeZone) -> String {
    let state = if view.state == "running" {
        view.state.clone()
    } else {
        format!("{YELLOW}{}{RESET}", clean(&view.state))
    };
    let since = moment::both(view.since, now, zone);
    let mut text = format!(
        "{BOLD}taskd {} on {}{RESET}: {state}, up since {since}\n\n",
        clean(&view.version),
        clean(&view.node)
    );
    let c = &view.counts;
    let mut unknown = if c.unknown > 0 { format!(", {} unknown", c.unknown) } else { String::new() };
    if c.dead > 0 {
        unknown.push_str(&format!(", {} dead", c.dead));
    }
    let mut facts = vec![
        ("Store", view.broker.clone()),
        ("Processes", view.supervision.clone()),
        ("Users", view.users.clone()),
    ];
    facts.extend(view.confinement.clone().map(|how| ("Confined", how)));
    facts.extend([
        ("Settings", format!("generation {}, daemon start {}", view.generation, view.epoch)),
        (
            "Messages",
            format!("{} waiting, {} scheduled, {} running{unknown}", c.waiting, c.scheduled, c.running),
        ),
        ("Attempts", format!("{} succeeded, {} failed since the daemon started", c.succeeded, c.failed)),
    ]);
    facts.extend(view.schedules.as_ref().map(|s| ("Schedules", schedules(s, now, zone))));
    text.push_str(&pairs(&facts));
    let pools = view.pools.iter().map(|p| {
        vec![
            p.name.clone(),
            format!("{}/{}", p.busy, p.processes),
            p.children.len().to_string(),
            p.replaced.recycled().to_string(),
            p.replaced.faults.to_string(),
            p.degraded.clone().unwrap_or_else(|| "whole".to_owned()),
        ]
    });
    text.push('\n');
    text.push_str(&render(
        &[
            Column::Text("POOL"),
            Column::Number("BUSY"),
            Column::Number("CHILDREN"),
            Column::Number("RECYCLED"),
            Column::Number("FAULTS"),
            Column::Text("STATE"),
        ],
        pools.collect(),
    ));
    text.push_str(&nodes(view, now));
    text.push_str(&children(view));
    let running: Vec<Vec<String>> = view
        .pools
        .iter()
        .flat_map(|p| &p.children)
        .flat_map(|child| {
            child
                .running
                .iter()
                .map(|r| vec![r.id.clone(), r.task.clone(), child.slot.clone(), moment::span(r.for_ms)])
        })
        .collect();
    if !running.is_empty() {
        text.push('\n');
        text.push_str(&render(
            &[Column::Whole("RUNNING"), Column::Text("TASK"), Column::Text("SLOT"), Column::Whole("FOR")],
            running,
        ));
    }
    if !view.notes.is_empty() {
        text.push('\n');
        for note in &view.notes {
            text.push_str(&format!("{YELLOW}note:{RESET} {}\n", clean(note)));
        }
    }
    text
}

/// How many there are, and which fires next.
fn schedules(view: &SchedulesView, now: i64, zone: &TimeZone) -> String {
    let paused = if view.paused > 0 { format!(", {} paused", view.paused) } else { String::new() };
    let next = match (&view.next_name, view.next) {
        (Some(name), Some(at)) => format!(", next {name} at {}", moment::both(at, now, zone)),
        _ => ", none waits for its time".to_owned(),
    };
    format!("{}{paused}{next}", view.count)
}

/// The nodes that share the store.
fn nodes(view: &StatusView, now: i64) -> String {
    if view.nodes.is_empty() {
        return String::new();
    }
    let row = |n: &NodeView| {
        let pools = n.pools.iter().map(|p| format!("{} {}/{}", p.name, p.busy, p.processes));
        let age = moment::span(u64::try_from(now.saturating_sub(n.seen)).unwrap_or(0));
        // One word is enough here: why a node is paused is told by its own `taskd status`.
        let state = n.state.split(':').next().unwrap_or_default().to_owned();
        vec![
            if n.this { format!("{} (this)", n.name) } else { n.name.clone() },
            n.version.clone(),
            state,
            format!("{age} ago"),
            pools.collect::<Vec<_>>().join(", "),
        ]
    };
    let columns = [
        Column::Text("NODE"),
        Column::Whole("VERSION"),
        Column::Whole("STATE"),
        Column::Whole("SEEN"),
        Column::Text("BUSY"),
    ];
    format!("\n{}", render(&columns, view.nodes.iter().map(row).collect()))
}

/// The children, the first ones where there are many.
fn children(view: &StatusView) -> String {
    let all: Vec<&ChildView> = view.pools.iter().flat_map(|p| &p.children).collect();
    if all.is_empty() {
        return String::new();
    }
    let row = |c: &&ChildView| {
        vec![
            c.slot.clone(),
            c.pid.to_string(),
            c.state.to_string(),
            c.runs.to_string(),
            moment::span(c.age_ms),
            c.memory.map_or_else(|| "-".to_owned(), size),
        ]
    };
    let columns = [
        Column::Text("CHILD"),
        Column::Number("PID"),
        Column::Whole("STATE"),
        Column::Number("RUNS"),
        Column::Number("AGE"),
        Column::Number("MEMORY"),
    ];
    let mut text = format!("\n{}", render(&columns, all.iter().take(CHILDREN).map(row).collect()));
    if all.len() > CHILDREN {
        text.push_str(&format!("and {} more (taskd status --json)\n", all.len() - CHILDREN));
    }
    text
}

/// What a message claims.
fn unique(claim: &UniqueView) -> String {
    let holds = match claim.holds {
        Holds::Both => "queued and running",
        other => other.word(),
    };
    let period = claim.period_ms.map(|ms| format!(", {} at most", moment::span(ms))).unwrap_or_default();
    format!("{} while {holds}{period}", claim.key)
}

/// One message.
#[must_use]
pub fn message(view: &MessageView, now: i64, zone: &TimeZone) -> String {
    let at = |ms: i64| moment::both(ms, now, zone);
    let mut lines = vec![
        ("Id", view.id.clone()),
        ("Task", view.task.clone()),
        ("Queue", format!("{}, priority {}", view.queue, view.priority)),
        ("State", view.state.to_string()),
    ];
    if !view.args.is_empty() || !view.kwargs.is_empty() {
        lines.push(("Arguments", arguments(view)));
    }
    if let Some(schedule) = &view.schedule {
        let planned =
            view.planned.map_or_else(|| ", by hand".to_owned(), |ms| format!(", planned {}", at(ms)));
        lines.push(("Schedule", format!("{schedule}{planned}")));
    }
    let by = view.uid.map_or_else(String::new, |uid| format!(" by uid {uid}"));
    lines.push(("Enqueued", format!("{}{by}", at(view.enqueued))));
    let times = [
        ("Due", view.due.filter(|_| !view.state.is_final())),
        ("Expires", view.expires.filter(|_| !view.state.is_final())),
        ("Started", view.started),
        ("Finished", view.finished),
    ];
    lines.extend(times.into_iter().filter_map(|(name, ms)| Some((name, at(ms?)))));
    if let Some(claim) = &view.unique {
        lines.push(("Unique", unique(claim)));
    }
    if let Some(ms) = view.waited_ms {
        lines.push(("Waited", moment::span(ms)));
    }
    if view.attempt > 0 && view.started.is_some() {
        let lost = if view.losses > 0 { format!(", {} lost", view.losses) } else { String::new() };
        let memory = match view.memory_retries {
            0 => String::new(),
            n => format!(", {n} by on_memory"),
        };
        let text = format!("{}, of these {} retries{memory}{lost}", view.attempt, view.retries);
        lines.push(("Attempts", text));
    }
    if let Some(limit) = view.memory_max {
        lines.push(("Memory", format!("at most {}", size(limit))));
    }
    if let Some(pid) = view.pid.filter(|_| view.state == State::Running) {
        lines.push(("Process", pid.to_string()));
    }
    if let Some(node) = &view.node {
        lines.push(("Node", node.clone()));
    }
    if let Some(p) = &view.progress {
        lines.push(("Progress", format!("{}/{} {}", p.current, p.total, p.message)));
    }
    let Some(outcome) = &view.outcome else { return pairs(&lines) };
    let cause = outcome.cause.to_string();
    lines.push(("Ended", cause.clone()));
    if let Some(f) = outcome.failure.as_ref().filter(|f| f.message != cause) {
        lines.push(("Error", format!("{}: {}", f.kind, f.message)));
    }
    if let Some(result) = &outcome.result {
        let text = result.as_str().map_or_else(|| result.to_string(), str::to_owned);
        lines.push(("Result", if outcome.truncated { format!("{text} (cut)") } else { text }));
    }
    let u = &outcome.usage;
    if view.started.is_some() && !u.is_measured() {
        lines.push(("Used", format!("{} of time", moment::span(u.wall_ms))));
    } else if view.started.is_some() {
        lines.push((
            "Used",
            format!(
                "{} of time, {} of CPU, {} of memory",
                moment::span(u.wall_ms),
                moment::span(u.user_us.saturating_add(u.system_us) / 1000),
                size(u.max_rss)
            ),
        ));
    }
    if u.killed_leftovers > 0 {
        lines.push(("Left over", format!("{} processes, killed at its end", u.killed_leftovers)));
    }
    if u.dropped_output > 0 {
        lines.push(("Dropped", format!("{} of output", size(u.dropped_output))));
    }
    let mut text = pairs(&lines);
    if let Some(f) = outcome.failure.as_ref().filter(|f| !f.traceback.trim().is_empty()) {
        text.push('\n');
        for line in f.traceback.trim_end().lines() {
            text.push_str(&format!("  {}\n", clean(line)));
        }
    }
    text
}

/// Arguments as one would write them on the command line, values as JSON.
fn arguments(view: &MessageView) -> String {
    let named = view.kwargs.iter().map(|(key, value)| format!("{key}={value}"));
    let mut all: Vec<String> = view.args.iter().map(ToString::to_string).chain(named).collect();
    if all.len() > 50 {
        let more = all.len() - 50;
        all.truncate(50);
        all.push(format!("and {more} more"));
    }
    output::clean(&all.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::{ChildState, CountsView, NodePoolView, PoolView, ReplacedView, RunningView};

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn fits(text: &str) -> bool {
        plain(text).lines().all(|l| l.chars().count() <= 80)
    }

    #[test]
    fn a_node_in_words() {
        let id = "0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f";
        let running = RunningView { id: id.into(), task: "send_email".into(), for_ms: 4_200 };
        let child = ChildView {
            slot: "default/0".into(),
            pid: 7,
            user: String::new(),
            state: ChildState::Ready,
            runs: 41,
            age_ms: 61_000,
            memory: Some(3 << 20),
            running: vec![running],
        };
        let mut view = StatusView {
            version: "0.1.0".into(),
            node: "web1".into(),
            state: "running".into(),
            since: 0,
            epoch: 1,
            generation: 2,
            upgrades: 0,
            upgrade_failure: None,
            broker: "embedded, /var/lib/taskd".into(),
            supervision: "process groups".into(),
            users: "all as uid 1000".into(),
            confinement: None,
            schedules: Some(SchedulesView {
                count: 3,
                paused: 1,
                next: Some(7_260_000),
                next_name: Some("nightly".into()),
            }),
            nodes: Vec::new(),
            pools: vec![PoolView {
                name: "default".into(),
                processes: 2,
                busy: 1,
                children: vec![child],
                replaced: ReplacedView { max_tasks_per_child: 3, max_child_age: 1, ..Default::default() },
                degraded: None,
            }],
            counts: CountsView {
                waiting: 12,
                scheduled: 3,
                running: 1,
                unknown: 0,
                dead: 0,
                succeeded: 120,
                failed: 4,
            },
            notes: vec!["no cgroup v2 here".into()],
        };
        let text = node(&view, 7_200_000, &TimeZone::UTC);
        assert!(fits(&text));
        assert_eq!(
            plain(&text),
            "\
taskd 0.1.0 on web1: running, up since 1970-01-01 00:00:00 (2h ago)

Store      embedded, /var/lib/taskd
Processes  process groups
Users      all as uid 1000
Settings   generation 2, daemon start 1
Messages   12 waiting, 3 scheduled, 1 running
Attempts   120 succeeded, 4 failed since the daemon started
Schedules  3, 1 paused, next nightly at 1970-01-01 02:01:00 (in 1m)

POOL     BUSY  CHILDREN  RECYCLED  FAULTS  STATE
default   1/2         1         4       0  whole

CHILD      PID  STATE  RUNS    AGE  MEMORY
default/0    7  ready    41  1m 1s    3.0M

RUNNING                               TASK        SLOT       FOR
0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f  send_email  default/0  4.2s

note: no cgroup v2 here
"
        );
        let node = |name: &str, state: &str, seen| NodeView {
            name: name.into(),
            this: name == "web1",
            version: "0.1.0".into(),
            host: "h".into(),
            state: state.into(),
            since: 0,
            seen,
            pools: vec![NodePoolView { name: "default".into(), processes: 2, busy: 1 }],
        };
        view.nodes =
            vec![node("db1", "paused: Redis is away", 7_199_000), node("web1", "running", 7_200_000)];
        let text = super::node(&view, 7_200_000, &TimeZone::UTC);
        assert!(fits(&text));
        assert!(
            plain(&text).contains(
                "
NODE         VERSION  STATE    SEEN      BUSY
db1          0.1.0    paused   1.0s ago  default 1/2
web1 (this)  0.1.0    running  0ms ago   default 1/2
"
            ),
            "{}",
            plain(&text)
        );
    }

    #[test]
    fn a_message_in_words() {
        let json = serde_json::json!({
            "id": "0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f", "task": "send_email", "queue": "mail",
            "state": "FAILURE", "args": ["a b", 3], "kwargs": {"user_id": 42}, "priority": 5, "attempt": 3,
            "retries": 2, "losses": 0, "uid": 1000, "enqueued": 0, "started": 1000, "finished": 3500,
            "waited_ms": 1000, "node": "web1",
            "outcome": {
                "cause": {"kind": "exit", "code": 1}, "success": false,
                "failure": {"type": "ExitCode", "message": "exit code 1", "traceback": "no route\nto host\n"},
                "usage": {"wall_ms": 2500, "user_us": 90_000, "system_us": 10_000, "max_rss": 12_582_912},
            },
        });
        let view: MessageView = serde_json::from_value(json).unwrap();
        let text = message(&view, 63_500, &TimeZone::UTC);
        assert!(fits(&text));
        assert_eq!(
            plain(&text),
            "\
Id         0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f
Task       send_email
Queue      mail, priority 5
State      FAILURE
Arguments  \"a b\" 3 user_id=42
Enqueued   1970-01-01 00:00:00 (1m 3s ago) by uid 1000
Started    1970-01-01 00:00:01 (1m 2s ago)
Finished   1970-01-01 00:00:03 (1m ago)
Waited     1.0s
Attempts   3, of these 2 retries
Node       web1
Ended      exit code 1
Used       2.5s of time, 100ms of CPU, 12.0M of memory

  no route
  to host
"
        );
    }
}
