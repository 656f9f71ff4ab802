//! Who is told of what: the rules, written down a second time, over what the store really took.

use std::collections::BTreeMap;

use taskd::engine::plan::{Plan, PoolPlan, QueuePlan};
use taskd::model::message::Message;
use taskd::model::notice::{Kind, NOTIFY, Notice, Rule, Tell};
use taskd::model::op::{Op, Reply};
use taskd::model::state::State;
use taskd::model::task::{Program, Task};
use taskd::model::time::Wall;

use crate::ledger::{Check, broken};
use crate::planted::Planted;
use crate::world::World;

/// Never enqueued: it is missed by every time.
const NIGHTLY: &str = "nightly";

/// 22:14 UTC and the minutes after it: the first comes with the end of the faults.
const EXPECTED: [u32; 4] = [1_334, 1_335, 1_336, 1_337];

fn rule(targets: &[&str], after: u32, at_most: Option<(u32, u64)>) -> Option<Rule> {
    Some(Rule { targets: targets.iter().map(|t| (*t).to_owned()).collect(), after, at_most })
}

/// Who is told in the simulation, and what tells them. Draws nothing: a seed is the same with and without it.
pub fn declare(plan: &mut Plan) {
    let mut tell = |task: &str, tell: Tell| {
        if let Some(task) = plan.tasks.get_mut(task) {
            task.tell = tell;
        }
    };
    let on_recovery = rule(&["b"], 1, None);
    tell(
        "ok",
        Tell {
            on_failure: rule(&["a"], 1, Some((1, 8_000))),
            on_recovery: on_recovery.clone(),
            expected_by: EXPECTED.to_vec(),
            ..Tell::default()
        },
    );
    tell("early", Tell { on_failure: rule(&["a", "b"], 1, None), on_recovery, ..Tell::default() });
    tell("flaky", Tell { on_failure: rule(&["a"], 2, Some((2, 15_000))), ..Tell::default() });
    tell(
        "poison",
        Tell {
            on_failure: rule(&["a"], 1, None),
            on_dead: rule(&["b"], 1, Some((1, 3_000))),
            ..Tell::default()
        },
    );
    let nightly =
        Tell { on_failure: rule(&["a", "b"], 1, None), expected_by: EXPECTED.to_vec(), ..Tell::default() };
    let program = || Program::Exec(vec!["x".into()]);
    plan.tasks.insert(NIGHTLY.into(), Task { tell: nightly, ..Task::new(NIGHTLY, program()) });
    let expires = u64::MAX / 4;
    plan.tasks.insert(
        NOTIFY.into(),
        Task { queue: Some(NOTIFY.into()), result_expires_ms: expires, ..Task::new(NOTIFY, program()) },
    );
    plan.pools.insert(NOTIFY.into(), PoolPlan::new(1, "run"));
    let queue = QueuePlan {
        pool: NOTIFY.into(),
        weight: 1,
        strict: false,
        concurrency: None,
        max_length: None,
        rate: None,
    };
    plan.queues.insert(NOTIFY.into(), queue);
}

/// What truly came of a task, in the order in which the store took it.
#[derive(Default)]
struct Row {
    failures: u32,
    told: bool,
    /// An alarm was told: the engine may not have known of it at the next success.
    alarmed: bool,
    kept_back: u32,
    times: BTreeMap<Kind, Vec<Wall>>,
    successes: Vec<Wall>,
}

/// The books.
#[derive(Default)]
pub struct Notices {
    rows: BTreeMap<String, Row>,
    /// Task, target and time of each alarm.
    alarms: Vec<(String, String, Wall)>,
    /// The clock went another way than time does.
    jumped: bool,
    pub told: u64,
}

impl Notices {
    pub fn jump(&mut self) {
        self.jumped = true;
    }
}

/// What is to be told of an end, as the rules say it.
fn expected(row: &mut Row, tell: &Tell, state: State, now: Wall) -> Option<(Kind, u32, u32)> {
    let fits = |row: &Row, kind: Kind, rule: &Rule| {
        let Some((most, period)) = rule.at_most else { return true };
        let times = row.times.get(&kind).map_or(&[][..], Vec::as_slice);
        times.iter().filter(|t| **t <= now && now.since(**t) < period).count() < most as usize
    };
    if state == State::Success {
        let rule = tell.on_recovery.as_ref().filter(|_| row.told)?;
        let fits = fits(row, Kind::Recovery, rule) && (row.failures >= rule.after || row.failures == 0);
        return fits.then_some((Kind::Recovery, row.failures, row.kept_back));
    }
    row.failures += 1;
    let kind = if state == State::Dead { Kind::Dead } else { Kind::Failure };
    let rule = tell.rule(kind).filter(|r| row.failures >= r.after)?;
    if fits(row, kind, rule) {
        return Some((kind, row.failures, row.kept_back));
    }
    row.kept_back += 1;
    None
}

impl World {
    /// 33 to 35: what the store took of an end and of its notices.
    pub fn notices_are_right(&mut self, op: &Op, task: &str) -> Check {
        let Op::Settle(settle) = op else { return Ok(()) };
        if !matches!(settle.state, State::Success | State::Failure | State::Dead) {
            return Ok(());
        }
        let Some(tell) = self.plan.tasks.get(task).map(|t| t.tell.clone()).filter(|t| !t.is_empty()) else {
            return if settle.follow_ups.is_empty() {
                Ok(())
            } else {
                broken("33 nobody_else_is_told", task)
            };
        };
        let notices: Vec<Notice> =
            settle.follow_ups.iter().filter_map(|m| Notice::of(m.kwargs.clone()).ok()).collect();
        let now = settle.now;
        // A clock that was set makes times near and far: then `at_most` may let another notice through.
        let bounded = |kind| tell.rule(kind).is_some_and(|r| r.at_most.is_some());
        let set = !self.schedules.jumps.is_empty()
            && [Kind::Failure, Kind::Recovery, Kind::Dead].into_iter().any(bounded);
        let exact = !self.faults_of_the_store && !set;
        let row = self.notices.rows.entry(task.to_owned()).or_default();
        let wanted = expected(row, &tell, settle.state, now);
        let told = notices.first().map(|n| (n.kind, n.failures, n.kept_back));
        let unsure = settle.state == State::Success && row.alarmed;
        if exact && !unsure && wanted != told {
            let detail = format!("{task} {} at {now:?}: {wanted:?} was to be told, {told:?} was", settle.id);
            return broken("33 exactly_what_the_rules_say", detail);
        }
        let kind = match settle.state {
            State::Success => Kind::Recovery,
            State::Dead => Kind::Dead,
            _ => Kind::Failure,
        };
        let rule = tell.rule(kind);
        let targets = if told.is_some() { rule.map_or(0, |r| r.targets.len()) } else { 0 };
        if notices.len() != targets {
            return broken(
                "33 each_is_told_once",
                format!("{task} {}: {} notices", settle.id, notices.len()),
            );
        }
        let times = row.times.entry(kind).or_default();
        let bound = rule.and_then(|r| r.at_most);
        let recent = bound
            .map_or(0, |(_, period)| times.iter().filter(|t| **t <= now && now.since(**t) < period).count());
        if told.is_some() {
            times.push(now);
            self.notices.told += 1;
            if !set && bound.is_some_and(|(most, _)| recent >= most as usize) {
                let detail = format!("{task} {kind:?} at {now:?}: {recent} before");
                return broken("34 nobody_is_told_too_often", detail);
            }
        } else if kind != Kind::Recovery && rule.is_some_and(|r| r.after == 1) {
            // Nothing but notices that are in the store keeps one back.
            if bound.is_none_or(|(most, _)| !set && recent < most as usize) {
                let detail = format!("{task} {} became {} and nobody is told", settle.id, settle.state);
                return broken("35 no_notice_is_lost", detail);
            }
        }
        if settle.state == State::Success {
            (row.failures, row.told, row.alarmed) = (0, false, false);
            row.successes.push(now);
        } else {
            row.told |= told.is_some();
        }
        if told.is_some() {
            row.kept_back = 0;
        }
        Ok(())
    }

    /// 36: an alarm comes once for each who is told, and only where no success came.
    pub fn alarm_is_right(&mut self, op: &Op, reply: &Reply) -> Check {
        let (Op::Once { message, .. }, Reply::Once(true)) = (op, reply) else { return Ok(()) };
        let Ok(notice) = Notice::of(message.kwargs.clone()) else { return Ok(()) };
        let (Some(by), Some(since)) = (notice.expected, notice.missing_since) else {
            return broken("36 an_alarm_says_its_times", format!("{notice:?}"));
        };
        let alarm = (notice.task.clone(), notice.target, by);
        if self.notices.alarms.contains(&alarm) {
            return broken("36 an_alarm_comes_once", format!("{alarm:?}"));
        }
        self.notices.alarms.push(alarm);
        let row = self.notices.rows.entry(notice.task.clone()).or_default();
        (row.told, row.alarmed) = (true, true);
        let came = row.successes.iter().any(|t| *t >= since && *t < by);
        if came && !self.notices.jumped {
            return broken("36 no_alarm_without_reason", format!("{} by {by:?}", notice.task));
        }
        Ok(())
    }

    /// 36: at the end every time that passed was looked at.
    pub fn alarms_came(&self) -> Check {
        if self.notices.jumped {
            return Ok(());
        }
        let day = self.now.wall.0 / 86_400_000 * 86_400_000;
        // A second is enough for a store without faults.
        let passed = EXPECTED
            .iter()
            .map(|m| Wall(day + i64::from(*m) * 60_000))
            .filter(|t| t.plus(1_000) <= self.now.wall);
        for by in passed {
            let told =
                self.notices.alarms.iter().filter(|(task, _, at)| task == NIGHTLY && *at == by).count();
            if told != 2 {
                return broken("36 every_alarm_comes", format!("{told} of 2 were told by {by:?}"));
            }
        }
        Ok(())
    }

    /// Planted: what is stored of the notices.
    pub fn bend_notices(&self, op: &mut Op) {
        let Op::Settle(settle) = op else { return };
        match self.bug {
            Some(Planted::LostNotice) => settle.follow_ups.clear(),
            Some(Planted::DoubledNotice) => {
                if let Some(first) = settle.follow_ups.first() {
                    let twin = Message { id: first.id.follow_up("twin", 0), ..first.clone() };
                    settle.follow_ups.push(twin);
                }
            }
            Some(Planted::ForgottenStreak) => settle.memos.clear(),
            _ => {}
        }
    }

    /// Planted: what the engine is told of the rules.
    pub fn bend_rules(&self, plan: &mut Plan) {
        if self.bug == Some(Planted::UnboundedNotices) {
            for task in plan.tasks.values_mut() {
                for rule in [&mut task.tell.on_failure, &mut task.tell.on_dead].into_iter().flatten() {
                    rule.at_most = None;
                }
            }
        }
    }
}
