//! What a resident Celery app says of the end of a call, and what it puts in the place of one.
//!
//! A task that replaces itself (`self.replace`) sends another message under its own id, with a higher number in
//! `replaced_task_nesting`, and ends as ignored: nothing is told of it then, for what is known by this id is what the
//! new message comes to. That message may be taken in before the old one has ended: it waits in the row of that.

use std::borrow::Cow;

use crate::celery::call::Call;
use crate::celery::canvas::builtin::Builtin;
use crate::celery::fault::Wrong;
use crate::celery::json::{Raw, value};
use crate::model::outcome::Outcome;

/// Whether a call can be run by what drains its queue: Celery's own tasks need an app.
///
/// # Errors
/// It is for one of those, and there is no app.
pub(super) fn is_for(call: &Call, queue: &str, has_app: bool) -> Result<(), Wrong> {
    if has_app || Builtin::of(call)?.is_none() {
        return Ok(());
    }
    Err(Wrong::NoApp { task: call.task.clone(), queue: queue.to_owned() })
}

/// The field of a message that says how often its task replaced itself.
pub(super) fn replacement(fields: &mut Vec<Vec<u8>>, nesting: u32) {
    if nesting > 0 {
        fields.extend([b"rn".to_vec(), nesting.to_string().into_bytes()]);
    }
}

/// Whether the task raised `Ignore`: whoever did that tells the result himself.
pub(super) fn is_ignored(outcome: &Outcome) -> bool {
    outcome.celery.as_ref().is_some_and(|celery| celery.ignored)
}

/// The call without those errbacks that were called where it ran.
pub(super) fn without_called<'a>(call: &'a Call, outcome: &Outcome) -> Cow<'a, Call> {
    let called = outcome.celery.as_ref().map(|celery| celery.errbacks.as_slice()).unwrap_or_default();
    if called.is_empty() {
        return Cow::Borrowed(call);
    }
    let mut left = call.clone();
    if let Some(errbacks) = left.errbacks.take() {
        let kept = errbacks
            .into_iter()
            .enumerate()
            .filter(|(place, _)| !u32::try_from(*place).is_ok_and(|place| called.contains(&place)));
        left.errbacks = Some(kept.map(|(_, errback)| errback).collect());
    }
    Cow::Owned(left)
}

/// The children of a call: what it sent itself, and what follows it.
pub(super) fn children(outcome: &Outcome, follow: &[Raw]) -> Vec<Raw> {
    let own = outcome.celery.as_ref().map(|celery| celery.children.as_slice()).unwrap_or_default();
    own.iter().map(value::write).chain(follow.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::celery::signature::Signature;
    use crate::model::outcome::{Cause, CeleryEnd};

    fn outcome(celery: CeleryEnd) -> Outcome {
        let mut outcome = Outcome::of_cause(Cause::Exit { code: 0 }, "");
        outcome.celery = Some(Box::new(celery));
        outcome
    }

    #[test]
    fn what_was_called_in_the_child_is_not_sent_again() {
        let sig = |name: &str| Signature::new(name, Raw::empty_list(), Raw::empty_object());
        let mut call = Call::new("shop.add", "i");
        call.errbacks = Some(vec![sig("a"), sig("b"), sig("c")]);
        let end = outcome(CeleryEnd { errbacks: vec![1, 7], ..CeleryEnd::default() });
        let left = without_called(&call, &end);
        let names: Vec<_> = left.errbacks.iter().flatten().map(|sig| sig.task.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        let none = outcome(CeleryEnd::default());
        assert!(matches!(without_called(&call, &none), Cow::Borrowed(_)));
    }

    #[test]
    fn what_it_sent_stands_before_what_follows_it() {
        let sent = serde_json::json!([["x", null], null]);
        let end = outcome(CeleryEnd { children: vec![sent], ignored: true, ..CeleryEnd::default() });
        let all = children(&end, &[Raw::of_text("y")]);
        assert_eq!(all.iter().map(Raw::text).collect::<Vec<_>>(), ["[[\"x\",null],null]", "\"y\""]);
        assert!(is_ignored(&end));
    }
}
