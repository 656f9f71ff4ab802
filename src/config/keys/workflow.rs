//! Keys of `[workflows.NAME]` and of its steps.

use super::{Key, Kind, keys};

const YEAR: u64 = 366 * 86_400_000;

pub(super) const WORKFLOW: &[Key] = keys! {
    "steps": Kind::Steps, Now, "", "The steps, each with the task it runs and what it comes after.";
};

/// Keys of a step.
pub const STEP: &[Key] = keys! {
    "name": Kind::Name, Now, "", "What `after` of other steps and `taskd show` call it; by default its task.";
    "task": Kind::Name, Now, "", "The task it runs.";
    "args": Kind::List, Now, "", "Positional arguments, behind the results of the steps before it.";
    "kwargs": Kind::Dict, Now, "", "Keyword arguments.";
    "after": Kind::Names, Now, "", "Names of the steps it comes after; without any it begins at once.";
    "when": Kind::Choice(&["success", "failure"]), Now, "", "After which end of those: success (the default), or the failure of one, whose id it is given.";
    "on_error": Kind::Choice(&["fail", "continue"]), Now, "", "When one of those failed: fail too (the default), or run with null in the place of its result.";
    "immutable": Kind::Bool, Now, "", "It is not given the results of the steps before it.";
    "queue": Kind::Name, Now, "", "Another queue than the task's.";
    "priority": Kind::Int(0, 9), Now, "", "Another priority than the task's.";
    "delay": Kind::Duration(0, YEAR), Now, "", "It waits so long after it could run.";
};
