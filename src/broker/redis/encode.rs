//! Operations as the scripts read them.

use super::args::Args;
use super::flows;
use super::message::messages;
use crate::model::limit::{self, Scope, Take};
use crate::model::message::Message;
use crate::model::op::{Memo, Op, Settle};
use crate::model::schedule::{Change, Fires, Tick, fire_id};

/// The name and the arguments of an operation that one script answers; `None`: it takes several.
pub(super) fn op(op: &Op, laps: impl Fn(&str) -> u32) -> Option<(&'static str, Args)> {
    let mut args = Args::default();
    let name = match op {
        Op::Publish { messages: list, max_length, now } => {
            args.num(now.0);
            let bounds = (0..list.len()).map(|i| max_length.get(i).copied().flatten());
            messages(&mut args, list.iter().zip(bounds));
            "publish"
        }
        Op::Lease { queue, credit, now, skip } => {
            args.text(queue.as_str()).num(credit).num(now.0).list(skip.iter().map(String::as_str));
            "lease"
        }
        Op::Start { id, token, now, takes } => {
            args.text(id.as_str()).num(token.0).num(now.0).flag(takes.sure);
            self::takes(&mut args, &takes.list);
            "start"
        }
        Op::Aside { id, token, lane, blocked, now } => {
            args.text(id.as_str()).num(token.0).num(now.0);
            // A lane without a value is another thing than none.
            args.text(lane.as_ref().map(|lane| format!("={lane}")).unwrap_or_default());
            takes(&mut args, blocked);
            "aside"
        }
        Op::Open { task } => {
            args.opt(task.as_deref());
            "open"
        }
        Op::Settle(settle) => {
            self::settle(&mut args, settle);
            "settle"
        }
        Op::Defer { id, token, until, counted, lost, takes, now } => {
            args.text(id.as_str()).num(token.0).opt_num(until.map(|t| t.0)).num(now.0);
            args.flag(*counted).flag(*lost);
            self::takes(&mut args, takes);
            "defer"
        }
        Op::Extend { leases } => {
            args.num(leases.len());
            for (id, token) in leases {
                args.text(id.as_str()).num(token.0);
            }
            "extend"
        }
        Op::Revoke { id, now } => {
            args.text(id.as_str()).num(now.0);
            "revoke"
        }
        Op::Requeue { id, now } => {
            args.text(id.as_str()).num(now.0);
            "requeue"
        }
        Op::Get { id } => {
            args.text(id.as_str());
            "get"
        }
        Op::Move { id, token, unknown, now: _ } => {
            args.text(id.as_str()).opt_num(token.map(|t| t.0)).flag(*unknown);
            "move"
        }
        Op::Sweep { now, retention } => {
            args.num(now.0).num(retention.age_ms).num(retention.count);
            args.num(retention.dead_age_ms).num(retention.dead_count);
            "sweep"
        }
        Op::Recover => "recover",
        Op::QueueState { queue, paused } => {
            args.text(queue.as_str()).flag(*paused);
            "queue_state"
        }
        Op::Once { key, at, message } => {
            args.text(key.as_str()).num(at.0);
            messages(&mut args, std::iter::once((message, None)));
            "once"
        }
        Op::Tick(tick) => {
            self::tick(&mut args, tick, laps(&tick.schedule));
            "tick"
        }
        Op::Schedules { after } => {
            args.text(after.as_str()).num(crate::model::schedule::MAX_ROWS);
            "schedules"
        }
        Op::Schedule(changes) => {
            self::changes(&mut args, changes);
            "schedule"
        }
        Op::Remember(memos) => {
            remember(&mut args, memos);
            "remember"
        }
        Op::Recall { prefix, after } => {
            args.text(prefix.as_str()).text(after.as_str()).num(crate::model::op::MAX_MEMOS);
            "recall"
        }
        Op::Node { name, announce, now } => {
            args.text(name.as_str()).text(announce.as_str()).num(now.0);
            "node"
        }
        Op::Launch { workflow, max_length, now } if flows::fits(workflow) => {
            flows::launch_op(&mut args, workflow, max_length, *now);
            "launch"
        }
        Op::Look(look) => {
            flows::look(&mut args, look);
            "look"
        }
        Op::CancelFlow { id, from, now } => {
            args.text(id.as_str()).num(from).num(now.0);
            "cancel_flow"
        }
        Op::RetryFlow { id, from, now } => {
            args.text(id.as_str()).num(from).num(now.0);
            "retry_flow"
        }
        Op::Launch { .. } => return None,
        Op::Letters(_) | Op::List(_) | Op::Purge { .. } | Op::Known { .. } | Op::Count => return None,
    };
    Some((name, args))
}

/// What a start takes, as `lane.takes` reads it.
fn takes(args: &mut Args, list: &[Take]) {
    args.num(list.len());
    for take in list {
        match take {
            Take::Rate { key, interval_us, burst } => {
                args.text("rate").text(key.as_str()).num(interval_us).num(burst)
            }
            Take::Place { key, limit } => args.text("place").text(key.as_str()).num(limit).num(0),
        };
        args.flag(limit::scope(take.key()) == Scope::Value);
    }
}

fn settle(args: &mut Args, s: &Settle) {
    let mut outcome = std::borrow::Cow::Borrowed(&s.outcome);
    let result = s.outcome.result.as_ref().map(ToString::to_string).unwrap_or_default();
    if s.forget_result && s.state.is_final() {
        outcome.to_mut().result = None;
    }
    args.text(s.id.as_str()).num(s.token.0).text(s.state.name()).num(s.now.0);
    args.opt_num(s.due.map(|t| t.0));
    args.text(serde_json::to_vec(outcome.as_ref()).unwrap_or_default());
    args.flag(s.lost).flag(s.memory.is_some());
    args.opt(s.memory.as_ref().and_then(|m| m.queue.as_deref()));
    args.text(result).opt_num(s.expires_ms);
    let json = |what: Option<Vec<u8>>| what.unwrap_or_default();
    args.text(json(s.call.as_ref().and_then(|call| serde_json::to_vec(&call.args).ok())));
    args.text(json(s.call.as_ref().and_then(|call| serde_json::to_vec(&call.kwargs).ok())));
    takes(args, &s.takes);
    messages(args, s.follow_ups.iter().map(|m| (m, None)));
    remember(args, &s.memos);
}

fn remember(args: &mut Args, memos: &[Memo]) {
    args.num(2 * memos.len());
    for memo in memos {
        args.text(memo.key.as_str());
        args.text(memo.value.as_ref().map(|value| format!("={value}")).unwrap_or_default());
    }
}

fn changes(args: &mut Args, changes: &[Change]) {
    args.num(changes.len());
    for change in changes {
        let (word, until, extra) = match change {
            Change::Plan { rule, until, .. } => ("plan", until.0, rule.as_str()),
            Change::Missed { until, .. } => ("missed", until.0, ""),
            Change::Pause { paused, until, .. } => ("pause", until.0, if *paused { "1" } else { "0" }),
            Change::Rewind { to, .. } => ("rewind", to.0, ""),
            Change::Forget { .. } => ("forget", 0, ""),
        };
        args.text(word).text(change.name()).num(until).text(extra);
    }
}

fn tick(args: &mut Args, t: &Tick, lap: u32) {
    let id = fire_id(&t.schedule, t.planned, lap);
    args.text(t.schedule.as_str()).num(t.planned.0).num(t.now.0).text(t.overlap.name());
    args.opt_num(t.pause_after).num(lap).text(id.as_str());
    args.flag(matches!(t.fires, Fires::Workflow(_)));
    let bounded = |m: &Message| t.max_length.get(&m.queue).map(|most| (m.queue.clone(), *most));
    let rooms: Vec<(String, u64)> = t.fires.first().filter_map(bounded).collect();
    args.num(2 * rooms.len());
    for (queue, most) in rooms {
        args.text(queue).num(most);
    }
    // The flag for what waits is the script's to set.
    if let Ok(fires) = crate::broker::rules::fired(t, lap, false) {
        match fires {
            Fires::Message(message) => messages(args, std::iter::once((message.as_ref(), None))),
            Fires::Workflow(workflow) => flows::launch(args, &workflow),
        }
    }
}
