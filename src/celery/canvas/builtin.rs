//! Celery's own tasks: messages for them lie in queues like any other, and are done by whoever takes them.

use crate::celery::call::Call;
use crate::celery::fault::{Wrong, kind};
use crate::celery::json::{Json, Kind, Raw};
use crate::celery::signature::Signature;

/// One of Celery's own tasks, with what it is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Builtin {
    /// `celery.map`, `celery.starmap`: a task run for each of a list, one after the other, in place; the result is
    /// the list of results.
    Each(Each),
    /// `celery.chord_unlock`: asks again and again whether a group has ended, then calls the body. Sent by clients
    /// whose result store cannot count.
    ChordUnlock(ChordUnlock),
    /// `celery.accumulate`: the result is the list of its arguments.
    Accumulate(Raw),
    /// `celery.backend_cleanup`: removes expired results, which taskd's stores do of themselves.
    BackendCleanup,
    /// `celery.group`, `celery.chain`, `celery.chord`, `celery.chunks` sent as tasks, which no client does today.
    Container(Signature),
}

/// A task for each of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Each {
    /// The task's name.
    pub task: String,
    /// The arguments of each run: an array.
    pub runs: Vec<Raw>,
}

/// A chord that its client's store cannot count.
#[derive(Clone, Debug, PartialEq)]
pub struct ChordUnlock {
    /// The header's group.
    pub group: String,
    /// What is called with all results.
    pub body: Signature,
    /// The header's members, in their order.
    pub members: Vec<String>,
    /// How long to wait before asking again, in milliseconds; absent: Celery's default of a second.
    pub interval_ms: Option<u64>,
    /// How often; absent: until it comes about.
    pub max_retries: Option<u32>,
}

impl Builtin {
    /// Celery's own task that a call is for; absent: it is for another one.
    ///
    /// # Errors
    /// It is, and its arguments are not those of that task.
    pub fn of(call: &Call) -> Result<Option<Self>, Wrong> {
        Ok(Some(match call.task.as_str() {
            "celery.map" => {
                Self::Each(Each::read(call, |item| Ok(Raw::parse(&format!("[{}]", item.text()))))?)
            }
            "celery.starmap" => Self::Each(Each::read(call, |item| match item.kind() {
                Kind::List => Ok(Ok(item.to_raw())),
                _ => Err(kind("an element of celery.starmap", "an array")),
            })?),
            "celery.chord_unlock" => Self::ChordUnlock(ChordUnlock::read(call)?),
            "celery.accumulate" => Self::Accumulate(call.args.clone()),
            "celery.backend_cleanup" => Self::BackendCleanup,
            "celery.group" | "celery.chain" | "celery.chord" | "celery.chunks" => {
                Self::Container(Signature::new(&call.task, call.args.clone(), call.kwargs.clone()).typed())
            }
            _ => return Ok(None),
        }))
    }
}

impl Signature {
    /// The same without a type, so that its name says what it is.
    fn typed(mut self) -> Self {
        self.other.take("subtask_type");
        self
    }
}

impl Each {
    fn read(
        call: &Call,
        args: impl Fn(Json<'_>) -> Result<Result<Raw, crate::celery::json::NotJson>, Wrong>,
    ) -> Result<Self, Wrong> {
        let at = |place: usize, name| {
            let positional = call.args.json().items().and_then(|items| items.get(place).copied());
            positional.or_else(|| call.kwargs.json().get(name))
        };
        let task = Signature::read(at(0, "task").ok_or(Wrong::Missing("the task of celery.map"))?)?;
        let items = at(1, "it").and_then(Json::items).ok_or_else(|| kind("it of celery.map", "an array"))?;
        let runs = items
            .into_iter()
            .map(|item| args(item)?.map_err(|source| Wrong::Json { part: "element", source }))
            .collect::<Result<_, _>>()?;
        Ok(Self { task: task.task, runs })
    }
}

impl ChordUnlock {
    fn read(call: &Call) -> Result<Self, Wrong> {
        let args = call.args.json().items().unwrap_or_default();
        let kwargs = call.kwargs.json();
        let at = |place: usize, name| args.get(place).copied().or_else(|| kwargs.get(name));
        let group = at(0, "group_id").and_then(Json::as_text);
        let group = group.ok_or(Wrong::Missing("the group of celery.chord_unlock"))?;
        let body =
            Signature::read(at(1, "callback").ok_or(Wrong::Missing("the body of celery.chord_unlock"))?)?;
        let members = kwargs.get("result").and_then(Json::items);
        let members = members.ok_or_else(|| kind("result of celery.chord_unlock", "an array"))?;
        let members = members
            .into_iter()
            .map(|member| {
                // [[id, parent], members], or [id, parent] from older clients.
                let first = member.items()?.first().copied()?;
                first.as_text().or_else(|| first.items()?.first()?.as_text())
            })
            .collect::<Option<_>>()
            .ok_or_else(|| kind("result of celery.chord_unlock", "an array of result tuples"))?;
        let retries = kwargs.get("max_retries").and_then(Json::as_i64);
        Ok(Self {
            group,
            body,
            members,
            interval_ms: crate::celery::call::read::seconds(kwargs.get("interval"), "interval")?,
            max_retries: retries.and_then(|n| u32::try_from(n).ok()),
        })
    }
}
