//! What follows an end: the calls that are sent next, with the ids, arguments and options that Celery's own workers
//! would give them.
//!
//! Ids that a client chose stand in the signatures; the others are derived from what they follow, so that doing it
//! again after a crash sends the same. Nothing here knows whether a result was stored or a message sent: the order is
//! the broker's (`ARCHITECTURE.md`, promise 7).

pub mod builtin;
mod expand;

use super::call::Call;
use super::fault::Wrong;
use super::json::Raw;
use super::json::build::list;
use super::signature::Signature;
use crate::model::name::MessageId;
use crate::model::time::Wall;
use expand::{Given, Plan};

/// What is sent because of an end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Follow {
    /// The calls, in the order in which they are sent.
    pub calls: Vec<Call>,
    /// The children of the call that ended, as result tuples for its meta.
    pub children: Vec<Raw>,
    /// Chords that begin: the header's group and how many members it has. To be stored before the calls are sent.
    pub chords: Vec<(String, usize)>,
}

/// What is done because of a failure, beside its own meta.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failed {
    /// What is called with the id of the failed call.
    pub errbacks: Follow,
    /// Later calls of its chain: they get the same FAILURE under their own ids.
    pub also: Vec<Planned>,
    /// Chords of which a later call of its chain is a member: that member failed.
    pub members: Vec<Member>,
}

/// A call that does not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its id.
    pub id: String,
    /// Its group.
    pub group: Option<String>,
}

/// A member of a chord's header, whose end counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The member's id.
    pub id: String,
    /// The header's group.
    pub group: String,
    /// Its place among the results; absent from clients of Celery 3.1.
    pub index: Option<i64>,
    /// What is called with all results.
    pub body: Signature,
}

impl Member {
    /// How many members there are, where the body says so (Celery up to 4). Later clients store it under the
    /// group's key ([`super::result::chord::size_key`]), **after** most of the header is sent.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.body
            .other
            .get("chord_size")
            .and_then(super::json::Json::as_i64)
            .and_then(|n| u64::try_from(n).ok())
    }
}

/// The chord that a call is a member of.
#[must_use]
pub fn member(call: &Call) -> Option<Member> {
    let (body, group) = (call.chord.clone()?, call.group.clone()?);
    Some(Member { id: call.id.clone(), group, index: call.group_index, body })
}

/// What follows a success with this result.
///
/// # Errors
/// A container among its callbacks is malformed, nested too deeply or too large. [`check`] finds that when the call
/// is taken in.
pub fn succeeded(call: &Call, result: &Raw, now: Wall) -> Result<Follow, Wrong> {
    let mut plan = Plan::new(MessageId(call.id.clone()), "celery-success", call, now);
    let given = || Given { args: vec![result.clone()], ..Given::default() };
    match call.callbacks.as_deref().unwrap_or_default() {
        [] => {}
        [one] => plan.child(one, given())?,
        several => {
            let (groups, plain): (Vec<_>, Vec<_>) =
                several.iter().partition(|sig| sig.shape() == super::signature::Shape::Group);
            for group in groups {
                plan.child(group, given())?;
            }
            let plain: Vec<Signature> = plain.into_iter().cloned().collect();
            plan.child_group(&plain, given())?;
        }
    }
    // The next of the chain is the last of the list.
    if let Some((next, rest)) = call.chain.as_deref().and_then(<[Signature]>::split_last) {
        plan.child(next, Given { chain: Some(rest.to_vec()), ..given() })?;
    }
    Ok(plan.done())
}

/// What is done after a failure. Call it for DEAD, EXPIRED and REVOKED too, as Celery does, but for the errbacks:
/// those are for failures.
///
/// # Errors
/// As [`succeeded`].
pub fn failed(call: &Call, now: Wall) -> Result<Failed, Wrong> {
    let (also, members) = never_run(call.chain.as_deref().unwrap_or_default());
    let mut plan = Plan::new(MessageId(call.id.clone()), "celery-failure", call, now);
    // Sent as a group even where it is one.
    let args = vec![Raw::of_text(&call.id)];
    plan.child_group(call.errbacks.as_deref().unwrap_or_default(), Given { args, ..Given::default() })?;
    Ok(Failed { errbacks: plan.done(), also, members })
}

/// The calls of a chain that are not sent any more, and the chords that wait for one of them.
fn never_run(chain: &[Signature]) -> (Vec<Planned>, Vec<Member>) {
    let (mut also, mut members) = (Vec::new(), Vec::new());
    for later in chain {
        let Some(id) = later.id() else { continue };
        let group = later.options.text("group_id");
        if let (Some(chord), Some(group)) = (later.options.some("chord"), group.clone())
            && let Ok(body) = Signature::read(chord)
        {
            let index = later.options.get("group_index").and_then(super::json::Json::as_i64);
            members.push(Member { id: id.clone(), group, index, body });
        }
        also.push(Planned { id, group });
    }
    (also, members)
}

/// What follows a chord whose members all succeeded: its body with the results in their order. `last` is the member
/// that ended last.
///
/// # Errors
/// As [`succeeded`].
pub fn joined(member: &Member, results: &[Raw], last: &Call, now: Wall) -> Result<Follow, Wrong> {
    let mut plan = Plan::new(MessageId(member.group.clone()), "celery-chord", last, now);
    let args = vec![list(results)];
    plan.child(&member.body, Given { args, ..Given::default() })?;
    Ok(plan.done())
}

/// What is done where a member of a chord failed: the bodies that do not come about (they get a `ChordError`), and
/// their errbacks, each called with the id of its body.
///
/// # Errors
/// As [`succeeded`].
pub fn not_joined(member: &Member, last: &Call, now: Wall) -> Result<Failed, Wrong> {
    let mut failed = Failed::default();
    let mut plan = Plan::new(MessageId(member.group.clone()), "celery-chord-failure", last, now);
    for body in plan.ends_of(&member.body, 0)? {
        let Some(id) = body.id() else { continue };
        failed.also.push(Planned { id: id.clone(), group: body.options.text("group_id") });
        if let Some(chain) = body.options.get("chain") {
            let (also, members) = never_run(&Signature::read_list(chain)?.unwrap_or_default());
            failed.also.extend(also);
            failed.members.extend(members);
        }
        // A body may be a member itself, of the chord around it.
        let (_, members) = never_run(std::slice::from_ref(&body));
        failed.members.extend(members);
        let errbacks = body.options.get("link_error").map_or(Ok(None), Signature::read_list)?;
        let given = Given { args: vec![Raw::of_text(&id)], ..Given::default() };
        plan.child_group(&errbacks.unwrap_or_default(), given)?;
    }
    failed.errbacks = plan.done();
    Ok(failed)
}

/// Whether all that may follow a call can be sent: asked when it is taken in, so that a broken callback is refused
/// then and not met after the work was done.
///
/// # Errors
/// As [`succeeded`].
pub fn check(call: &Call) -> Result<(), Wrong> {
    succeeded(call, &Raw::null(), Wall(0))?;
    failed(call, Wall(0))?;
    if let Some(member) = member(call) {
        joined(&member, &[], call, Wall(0))?;
        not_joined(&member, call, Wall(0))?;
    }
    Ok(())
}
