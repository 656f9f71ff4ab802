//! What the end of an attempt leads to: one pure function.

use crate::model::outcome::{Cause, Outcome, SPAWN_AGAIN};
use crate::model::state::State;
use crate::model::task::{Acks, RetryPolicy, Task};

/// So many attempts that ended `worker_lost` make a message DEAD.
pub const MAX_LOSSES: u32 = 3;

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ends in this state.
    Final {
        /// The state.
        state: State,
        /// The attempt was lost.
        lost: bool,
    },
    /// It runs again, and that counts as a retry.
    Retry {
        /// After this many milliseconds.
        after_ms: u64,
    },
    /// It runs again at once, as its task's `on_memory` rule says, and that is no retry.
    Memory,
    /// It runs again because its attempt was lost.
    Lost,
    /// It runs again, and that is neither a retry nor a loss.
    Back,
    /// As [`Verdict::Back`], after the pool had time to breathe.
    SpawnAgain,
    /// It runs again because its program put it back, and that is neither a retry nor a loss.
    Aside {
        /// After this many milliseconds.
        after_ms: u64,
    },
}

/// What a message has behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Retries after an outcome.
    pub retries: u32,
    /// Attempts that were lost.
    pub losses: u32,
    /// Times that `on_memory` was applied.
    pub memory_retries: u32,
}

/// Decides by the task's policy. `task` is absent for a run whose task is not declared any more: it is
/// not retried. `draw(n)` draws from 0 to n, both included. `revoked`: somebody canceled the attempt;
/// then it does not run again, whatever else it came to.
#[must_use]
pub fn verdict(
    task: Option<&Task>,
    counts: Counts,
    revoked: bool,
    outcome: &Outcome,
    draw: impl FnOnce(u64) -> u64,
) -> Verdict {
    let v = by_policy(task, counts, outcome, draw);
    match v {
        Verdict::Final { .. } => v,
        _ if revoked => Verdict::Final { state: State::Revoked, lost: v == Verdict::Lost },
        _ => v,
    }
}

fn by_policy(
    task: Option<&Task>,
    counts: Counts,
    outcome: &Outcome,
    draw: impl FnOnce(u64) -> u64,
) -> Verdict {
    let failure = Verdict::Final { state: State::Failure, lost: false };
    let Counts { retries, losses, memory_retries } = counts;
    let rule = task.and_then(|t| t.limits.on_memory.as_ref());
    let early = task.is_some_and(|t| t.acks == Acks::Early);
    if outcome.success {
        return Verdict::Final { state: State::Success, lost: false };
    }
    match &outcome.cause {
        Cause::Revoked => return Verdict::Final { state: State::Revoked, lost: false },
        Cause::Expired => return Verdict::Final { state: State::Expired, lost: false },
        Cause::Rejected | Cause::Upstream { .. } => return failure,
        // `acks = "early"` never runs twice but by its own retry policy.
        Cause::WorkerLost if early => return Verdict::Final { state: State::Failure, lost: true },
        Cause::WorkerLost if losses + 1 >= MAX_LOSSES => {
            return Verdict::Final { state: State::Dead, lost: true };
        }
        Cause::WorkerLost => return Verdict::Lost,
        Cause::Interrupted if early => return failure,
        Cause::Interrupted => return Verdict::Back,
        Cause::SpawnFailed if outcome.failure.as_ref().is_some_and(|f| f.kind == SPAWN_AGAIN) => {
            return Verdict::SpawnAgain;
        }
        Cause::SpawnFailed => return failure,
        Cause::Memory if rule.is_some_and(|r| memory_retries < r.max) => return Verdict::Memory,
        Cause::Error { fatal: true } => return failure,
        Cause::Error { .. }
        | Cause::Exit { .. }
        | Cause::Signal { .. }
        | Cause::TimeLimit { .. }
        | Cause::Memory => {}
    }
    let Some(policy) = task.map(|t| &t.retry) else { return failure };
    if let Some(asked) = &outcome.retry {
        // A message that was acknowledged at its start is not there any more to be put back.
        if asked.back && !early {
            return Verdict::Aside { after_ms: asked.delay_ms.unwrap_or(policy.delay_ms) };
        }
        if asked.back {
            return failure;
        }
        if asked.own {
            let after_ms = asked.delay_ms.unwrap_or_else(|| delay(policy, retries, draw));
            return Verdict::Retry { after_ms };
        }
    }
    let matched = match outcome.cause {
        Cause::Exit { code } => policy.retry_on.is_empty() || policy.retry_on.contains(&code),
        _ => policy.retry_on.is_empty(),
    };
    if retries >= policy.max_retries || !(outcome.retry.is_some() || matched) {
        return failure;
    }
    let asked = outcome.retry.as_ref().and_then(|r| r.delay_ms);
    Verdict::Retry { after_ms: asked.unwrap_or_else(|| delay(policy, retries, draw)) }
}

/// The pause before retry number `retries` + 1.
fn delay(policy: &RetryPolicy, retries: u32, draw: impl FnOnce(u64) -> u64) -> u64 {
    if !policy.backoff {
        return policy.delay_ms;
    }
    let factor = 1_u64.checked_shl(retries).unwrap_or(u64::MAX);
    let full = policy.delay_ms.saturating_mul(factor).min(policy.backoff_max_ms);
    if policy.jitter { draw(full) } else { full }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::task;
    use super::*;
    use crate::model::outcome::RetryAsked;

    fn exit(code: i32) -> Outcome {
        Outcome::of_cause(Cause::Exit { code }, "x")
    }

    fn with(max: u32, change: impl FnOnce(&mut RetryPolicy)) -> Task {
        let mut t = task("t");
        t.retry = RetryPolicy { max_retries: max, jitter: false, ..RetryPolicy::default() };
        change(&mut t.retry);
        t
    }

    fn decide(t: &Task, retries: u32, losses: u32, o: &Outcome) -> Verdict {
        verdict(Some(t), Counts { retries, losses, memory_retries: 0 }, false, o, |n| n)
    }

    const FAILURE: Verdict = Verdict::Final { state: State::Failure, lost: false };

    #[test]
    fn a_failure_is_retried_while_retries_last() {
        let t = with(2, |_| {});
        assert_eq!(decide(&t, 0, 0, &exit(1)), Verdict::Retry { after_ms: 10_000 });
        assert_eq!(decide(&t, 1, 0, &exit(1)), Verdict::Retry { after_ms: 10_000 });
        assert_eq!(decide(&t, 2, 0, &exit(1)), FAILURE);
        let asked =
            Outcome { retry: Some(RetryAsked { delay_ms: Some(5), ..RetryAsked::default() }), ..exit(75) };
        assert_eq!(decide(&t, 0, 0, &asked), Verdict::Retry { after_ms: 5 });
        assert_eq!(decide(&t, 2, 0, &asked), FAILURE, "an asked retry is bounded alike");
        assert_eq!(decide(&with(0, |_| {}), 0, 0, &exit(75)), FAILURE);
    }

    #[test]
    fn who_counts_retries_itself_is_not_counted_and_who_puts_back_is_none() {
        let own =
            |asked| Outcome { retry: Some(asked), ..Outcome::of_cause(Cause::Error { fatal: false }, "x") };
        let asked = own(RetryAsked { delay_ms: Some(7), own: true, ..RetryAsked::default() });
        assert_eq!(decide(&with(0, |_| {}), 99, 0, &asked), Verdict::Retry { after_ms: 7 });
        let canceled = verdict(Some(&with(0, |_| {})), Counts::default(), true, &asked, |n| n);
        assert_eq!(canceled, Verdict::Final { state: State::Revoked, lost: false });
        assert_eq!(verdict(None, Counts::default(), false, &asked, |n| n), FAILURE, "no task, no retry");
        let back = own(RetryAsked { delay_ms: Some(9), back: true, ..RetryAsked::default() });
        assert_eq!(decide(&with(0, |_| {}), 3, 2, &back), Verdict::Aside { after_ms: 9 });
        assert_eq!(decide(&Task { acks: Acks::Early, ..with(5, |_| {}) }, 0, 0, &back), FAILURE);
    }

    #[test]
    fn retry_on_names_the_only_failures_that_are_retried() {
        let t = with(2, |p| p.retry_on = vec![3]);
        assert_eq!(decide(&t, 0, 0, &exit(3)), Verdict::Retry { after_ms: 10_000 });
        assert_eq!(decide(&t, 0, 0, &exit(4)), FAILURE);
        let limit = Outcome::of_cause(Cause::TimeLimit { soft: false }, "x");
        assert_eq!(decide(&t, 0, 0, &limit), FAILURE);
        assert_eq!(decide(&with(1, |_| {}), 0, 0, &limit), Verdict::Retry { after_ms: 10_000 });
    }

    #[test]
    fn backoff_doubles_up_to_its_bound_and_jitter_draws_below() {
        let t = with(99, |p| {
            p.backoff = true;
            p.backoff_max_ms = 60_000;
        });
        for (retries, ms) in [(0, 10_000), (1, 20_000), (2, 40_000), (3, 60_000), (98, 60_000)] {
            assert_eq!(decide(&t, retries, 0, &exit(1)), Verdict::Retry { after_ms: ms });
        }
        let mut t = t;
        t.retry.jitter = true;
        let counts = Counts { retries: 1, ..Counts::default() };
        let v = verdict(Some(&t), counts, false, &exit(1), |n| n / 4);
        assert_eq!(v, Verdict::Retry { after_ms: 5_000 });
    }

    #[test]
    fn want_of_memory_follows_its_own_rule_first_and_uses_no_retry_up() {
        let memory = Outcome::of_cause(Cause::Memory, "x");
        let mut t = with(1, |_| {});
        let at = |t: &Task, memory_retries, revoked| {
            let counts = Counts { retries: 1, losses: 0, memory_retries };
            verdict(Some(t), counts, revoked, &memory, |n| n)
        };
        assert_eq!(at(&t, 0, false), FAILURE, "without a rule it is a failure like any other");
        t.limits.on_memory = Some(crate::model::task::OnMemory { memory_max: None, queue: None, max: 2 });
        assert_eq!([0, 1, 2].map(|n| at(&t, n, false)), [Verdict::Memory, Verdict::Memory, FAILURE]);
        assert_eq!(at(&t, 0, true), Verdict::Final { state: State::Revoked, lost: false });
    }

    #[test]
    fn lost_attempts_come_back_until_the_third() {
        let lost = Outcome::of_cause(Cause::WorkerLost, "x");
        let t = with(0, |_| {});
        assert_eq!(decide(&t, 0, 0, &lost), Verdict::Lost);
        assert_eq!(decide(&t, 0, 1, &lost), Verdict::Lost);
        assert_eq!(decide(&t, 0, 2, &lost), Verdict::Final { state: State::Dead, lost: true });
        let early = Task { acks: Acks::Early, ..t };
        assert_eq!(decide(&early, 0, 0, &lost), Verdict::Final { state: State::Failure, lost: true });
    }

    #[test]
    fn what_is_canceled_does_not_run_again_and_a_finished_race_stands() {
        let t = with(5, |_| {});
        let canceled = |o: &Outcome| verdict(Some(&t), Counts::default(), true, o, |n| n);
        let lost = Outcome::of_cause(Cause::WorkerLost, "x");
        assert_eq!(canceled(&lost), Verdict::Final { state: State::Revoked, lost: true });
        assert_eq!(canceled(&exit(1)), Verdict::Final { state: State::Revoked, lost: false });
        let done = Outcome { success: true, ..exit(0) };
        assert_eq!(canceled(&done), Verdict::Final { state: State::Success, lost: false });
    }

    #[test]
    fn an_interrupted_attempt_and_a_full_process_table_cost_nothing() {
        let t = with(0, |_| {});
        assert_eq!(decide(&t, 0, 2, &Outcome::of_cause(Cause::Interrupted, "x")), Verdict::Back);
        let mut again = Outcome::of_cause(Cause::SpawnFailed, "EAGAIN");
        assert_eq!(decide(&with(9, |_| {}), 0, 0, &again), FAILURE);
        again.failure.as_mut().unwrap().kind = SPAWN_AGAIN.into();
        assert_eq!(decide(&t, 0, 0, &again), Verdict::SpawnAgain);
    }
}
