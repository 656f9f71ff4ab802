//! Answers of the scripts as replies.

use std::collections::BTreeMap;

use redis::Value;

use super::flows;
use super::message;
use super::reply::{Odd, Reader};
use crate::broker::rules;
use crate::model::message::{Delivery, Record};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Memo, Published, QueueCount, Reply};
use crate::model::schedule::{Became, Pause, Row, Skip, Ticked};
use crate::model::state::State;
use crate::model::time::Wall;

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum No {
    /// It is the answer.
    Fault(Fault),
    /// A schedule was rewound since: the tick is to be asked with this lap.
    Lap(u32),
    /// This message is on the express way: it is to be made a row first.
    Flying(MessageId),
}

impl From<Odd> for No {
    fn from(odd: Odd) -> Self {
        Self::Fault(Fault::Refused(format!(
            "what Redis keeps under taskd's keys is not what taskd wrote: {}; look for another program that writes there",
            odd.0
        )))
    }
}

/// What became of one operation: its reply, with what it did beside.
pub(super) fn item(value: Value) -> Result<Reply, No> {
    let mut item = Reader::of(value)?;
    let reply = item.list()?;
    let beside = flows::fallout(item.value()?)?;
    Ok(rules::with(self::reply(reply)?, beside))
}

/// The reply itself.
pub(super) fn reply(mut list: Reader) -> Result<Reply, No> {
    let word = list.text()?;
    Ok(match word.as_str() {
        "applied" => rules::applied(),
        "stale" => rules::stale(record(list.value()?)?.map(|r| *r)),
        "leased" => {
            let opens = list.opt_num()?.map(Wall);
            Reply::Leased { deliveries: deliveries(list.list()?)?, opens }
        }
        "took" => {
            let mut tats = Vec::with_capacity(list.len());
            while !list.is_empty() {
                tats.push(list.num()?);
            }
            Reply::Took(tats)
        }
        "closed" => Reply::Closed { key: list.text()?, until: list.opt_num()?.map(Wall) },
        "published" => {
            let mut all = Vec::with_capacity(list.len());
            while !list.is_empty() {
                all.push(published(list.list()?)?);
            }
            Reply::Published(all)
        }
        "full" => Reply::QueueFull { queue: list.text()?, max_length: list.num()? },
        "taken" => Reply::Taken {
            of: MessageId(list.text()?),
            holder: MessageId(list.text()?),
            record: record(list.value()?)?,
        },
        "in_hand" => Reply::InHand { holder: MessageId(list.text()?), key: list.text()? },
        "lost" => Reply::Lost(list.texts()?.into_iter().map(MessageId).collect()),
        "record" => Reply::Record(record(list.value()?)?),
        "deliveries" => Reply::Deliveries(deliveries(list)?),
        "counts" => counts(list.list()?, list.list()?.texts()?)?,
        "purged" => Reply::Purged(list.num()?),
        "swept" => Reply::Swept {
            queues: list.list()?.texts()?,
            expired: list.list()?.texts()?.into_iter().map(MessageId).collect(),
            next: list.opt_num()?.map(Wall),
            more: list.num::<u8>()? == 1,
        },
        "once" => Reply::Once(list.num::<u8>()? == 1),
        "ticked" => Reply::Ticked(Box::new(ticked(list)?)),
        "schedules" => {
            let mut rows = Vec::with_capacity(list.len());
            while !list.is_empty() {
                rows.push(schedule(list.list()?)?);
            }
            Reply::Schedules(rows)
        }
        "memos" => {
            let mut memos = Vec::with_capacity(list.len() / 2);
            while !list.is_empty() {
                memos.push(Memo { key: list.text()?, value: Some(list.text()?) });
            }
            Reply::Memos(memos)
        }
        "nodes" => {
            let mut nodes = Vec::with_capacity(list.len());
            while !list.is_empty() {
                let mut node = list.list()?;
                nodes.push((node.text()?, node.text()?, Wall(node.num()?)));
            }
            Reply::Nodes(nodes)
        }
        "done" => Reply::Done,
        "flying" => return Err(No::Flying(MessageId(list.text()?))),
        "lap" => return Err(No::Lap(list.num()?)),
        "gone" => return Err(No::Fault(rules::arguments_gone(&MessageId(list.text()?)))),
        "refused" | "error" => return Err(No::Fault(Fault::Refused(list.text()?))),
        other => return flows::reply(other, list),
    })
}

/// A record, if there is one.
pub(super) fn record(value: Value) -> Result<Option<Box<Record>>, Odd> {
    Ok(message::row(value)?.map(|row| Box::new(row.record)))
}

fn deliveries(list: Reader) -> Result<Vec<Delivery>, Odd> {
    let mut all = Vec::with_capacity(list.len());
    for value in list.each() {
        if let Some(row) = message::row(value)? {
            all.push(row.delivery()?);
        }
    }
    Ok(all)
}

/// What became of one message of a publish.
pub(super) fn published(mut list: Reader) -> Result<Published, No> {
    let gone = || Odd::new("a message that holds a key and is not there");
    Ok(match list.text()?.as_str() {
        "new" => Published::New,
        "replaced" => Published::Replaced(MessageId(list.text()?)),
        "known" => Published::Known(record(list.value()?)?.ok_or_else(gone)?),
        "held" => Published::Held(record(list.value()?)?.ok_or_else(gone)?),
        "workflow" => Published::Workflow(Box::new(flows::head(list.list()?)?)),
        other => return Err(Odd::new(format!("the word {other:?}")).into()),
    })
}

fn counts(mut list: Reader, paused: Vec<String>) -> Result<Reply, Odd> {
    let mut all: BTreeMap<String, QueueCount> = BTreeMap::new();
    let empty = |queue: &str| QueueCount { queue: queue.to_owned(), ..QueueCount::default() };
    while !list.is_empty() {
        let (name, n) = (list.text()?, list.num::<i64>()?);
        let n = u64::try_from(n).unwrap_or(0);
        let Some((queue, kind)) = name.rsplit_once('\0').filter(|(queue, _)| !queue.is_empty() && n > 0)
        else {
            continue;
        };
        if kind == "i" {
            continue;
        }
        let count = all.entry(queue.to_owned()).or_insert_with(|| empty(queue));
        match kind {
            "w" => count.waiting += n,
            "s" => count.scheduled = n,
            "l" => count.leased += n,
            "u" => count.unknown = n,
            _ => count.dead = n,
        }
    }
    for queue in paused {
        all.entry(queue.clone()).or_insert_with(|| empty(&queue)).paused = true;
    }
    Ok(Reply::Counts(all.into_values().collect()))
}

fn ticked(mut list: Reader) -> Result<Ticked, Odd> {
    let id = MessageId(list.text()?);
    let word = list.text()?;
    let mut detail = list.list()?;
    let mut ids = || Ok::<_, Odd>(list.list()?.texts()?.into_iter().map(MessageId).collect());
    let (running, flows, revoked) = (ids()?, ids()?, ids()?);
    let became = match word.as_str() {
        "fired" => Became::Fired,
        "held" => Became::Held,
        "known" => Became::Known,
        "paused" => Became::Paused,
        _ => Became::Skipped(match detail.text()?.as_str() {
            "running" => Skip::Running(MessageId(detail.text()?)),
            "too_many" => Skip::TooMany,
            "full" => Skip::QueueFull { queue: detail.text()?, max_length: detail.num()? },
            _ => Skip::KeyHeld,
        }),
    };
    Ok(Ticked { id, became, running, flows, revoked })
}

fn schedule(mut list: Reader) -> Result<Row, Odd> {
    let mut row = Row::new(&list.text()?, Wall(0));
    let mut fields = list.list()?;
    row.live = list.num()?;
    row.held = list.num()?;
    row.ending = list.list()?.texts()?.into_iter().map(MessageId).collect();
    while !fields.is_empty() {
        match fields.text()?.as_str() {
            "rule" => row.rule = fields.text()?,
            "until" => row.until = Wall(fields.num()?),
            "fired" => row.fired = Some(Wall(fields.num()?)),
            "id" => row.id = Some(MessageId(fields.text()?)),
            "workflow" => row.workflow = fields.text()? == "1",
            "state" => row.state = State::parse(&fields.text()?),
            "ended" => row.ended = Some(Wall(fields.num()?)),
            "failures" => row.failures = fields.num()?,
            "pause_after" => row.pause_after = Some(fields.num()?),
            "paused" => {
                let failures = fields.text()? == "failures";
                row.paused = Some(if failures { Pause::Failures } else { Pause::Asked });
            }
            "lap" => row.lap = fields.num()?,
            other => return Err(Odd::new(format!("a schedule's field {other:?}"))),
        }
    }
    Ok(row)
}
