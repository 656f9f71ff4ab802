//! Workflows as the scripts read and answer them.

use redis::Value;

use super::args::Args;
use super::decode::No;
use super::reply::{Odd, Reader};
use super::store::Store;
use crate::model::op::{Fault, Op, Reply};
use crate::model::workflow::{Fallout, Head, Workflow};

/// A workflow that is to be launched.
pub(super) fn launch(_args: &mut Args, _workflow: &Workflow) {}

/// What an operation did beside its answer.
pub(super) fn fallout(_value: Value) -> Result<Fallout, Odd> {
    Ok(Fallout::default())
}

/// What is known of a workflow.
pub(super) fn head(_list: Reader) -> Result<Head, Odd> {
    Ok(Head::default())
}

/// The replies of the operations on workflows.
pub(super) fn reply(word: &str, _list: Reader) -> Result<Reply, No> {
    Err(Odd::new(format!("the word {word:?}")).into())
}

/// The operations on workflows.
pub(super) fn answer(_store: &mut Store, _op: Op) -> Result<Reply, Fault> {
    Err(Fault::Refused("workflows".to_owned()))
}
