//! Workflows as the scripts read and answer them.

use std::collections::BTreeMap;

use redis::Value;

use super::args::Args;
use super::decode::No;
use super::message;
use super::reply::{Odd, Reader};
use super::store::Store;
use crate::model::message::Message;
use crate::model::name::MessageId;
use crate::model::op::{Fault, Flowed, Reply};
use crate::model::schedule::Fired;
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::workflow::{
    self, Fallout, Head, Look, OnError, Seen, Stage, Step, StepSeen, When, Workflow,
};

/// Most steps of one script; a workflow of more is uploaded in parts.
const STEPS: usize = 1_000;

/// Most bytes of arguments of one script.
const BYTES: usize = 4 << 20;

/// First steps that a launch publishes; the others are begun by sweeps, so that no script takes long.
const AT_ONCE: usize = 2_000;

/// Whether a workflow is launched by one script.
pub(super) fn fits(w: &Workflow) -> bool {
    let size = || w.steps.iter().map(|s| s.message.size() + 4 * s.after.len()).sum::<usize>();
    w.steps.len() <= STEPS && size() <= BYTES
}

/// A workflow with all its steps, as `joins.read_launch` reads it.
pub(super) fn launch(args: &mut Args, w: &Workflow) {
    head_of(args, w, None);
    let after = followers(&w.steps);
    steps(args, &w.steps, &after);
}

/// The arguments of a launch by one script.
pub(super) fn launch_op(args: &mut Args, w: &Workflow, max_length: &BTreeMap<String, u64>, now: Wall) {
    conditions(args, w, max_length, now);
    launch(args, w);
}

/// Launches a workflow whose steps are too many for one script: they are uploaded, then it is launched in one step.
pub(super) fn upload(
    store: &mut Store,
    w: &Workflow,
    max_length: &BTreeMap<String, u64>,
    now: Wall,
) -> Result<Reply, Fault> {
    let mut args = Args::default();
    conditions(&mut args, w, max_length, now);
    if workflow::check(&w.steps).is_err() {
        // Nothing is stored of it: what is refused is found out by the script, in the order of the other stores.
        launch(&mut args, w);
        return store.answer("launch", args);
    }
    // Of this node alone: a repeat takes the place of what an earlier one left.
    let stage = format!("{} {}", store.node(), w.id);
    let after = followers(&w.steps);
    let (mut from, mut rest) = (0, w.steps.as_slice());
    while !rest.is_empty() {
        let n = part_of(rest);
        let (part, behind) = rest.split_at(n);
        let mut part_args = Args::default();
        part_args.text(stage.as_str()).num(from).num(late(w));
        steps(&mut part_args, part, after.get(from..).unwrap_or_default());
        store.ask("launch_part", part_args)?;
        (from, rest) = (from + n, behind);
    }
    head_of(&mut args, w, Some(&stage));
    store.answer("launch", args)
}

/// How many of these steps go into one script.
fn part_of(steps: &[Step]) -> usize {
    let mut bytes = 0;
    let fits = |step: &&Step| {
        bytes += step.message.size() + 4 * step.after.len();
        bytes <= BYTES
    };
    steps.iter().take(STEPS).take_while(fits).count().max(1)
}

/// What a launch is judged by.
fn conditions(args: &mut Args, w: &Workflow, max_length: &BTreeMap<String, u64>, now: Wall) {
    let unfit = workflow::check(&w.steps).err().map(|unfit| unfit.to_string());
    args.num(now.0).opt(unfit.as_deref()).text(if w.linked { "1" } else { "" });
    args.num(3 * max_length.len());
    for (queue, most) in max_length {
        let first = w.roots().filter(|s| s.message.queue == *queue).count();
        args.text(queue.as_str()).num(most).num(first);
    }
}

/// First steps from this number on are not published at once.
fn late(w: &Workflow) -> u32 {
    if w.fired.as_ref().is_some_and(|f| f.held) {
        return 0;
    }
    numbers(&w.steps, |s| s.after.is_empty()).nth(AT_ONCE).unwrap_or(u32::MAX)
}

fn numbers(steps: &[Step], which: impl Fn(&Step) -> bool) -> impl Iterator<Item = u32> {
    (0_u32..).zip(steps).filter(move |(_, s)| which(s)).map(|(no, _)| no)
}

fn head_of(args: &mut Args, w: &Workflow, stage: Option<&str>) {
    args.text(w.id.as_str()).text(w.name.as_str()).opt_num(w.uid).num(w.keep_ms);
    let fired = w.fired.as_ref();
    args.text(fired.map(|f| format!("={}", f.schedule)).unwrap_or_default());
    args.opt_num(fired.and_then(|f| f.planned).map(|at| at.0));
    args.text(if fired.is_some_and(|f| f.held) { "1" } else { "" });
    args.text(fours(numbers(&w.steps, |s| s.sink)));
    args.text(fours(numbers(&w.steps, |s| s.after.is_empty())));
    args.num(late(w)).num(w.steps.len()).opt(stage);
}

/// Numbers of steps, four bytes each.
fn fours(numbers: impl Iterator<Item = u32>) -> Vec<u8> {
    numbers.flat_map(u32::to_be_bytes).collect()
}

/// Of each step those that come after it.
fn followers(steps: &[Step]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![Vec::new(); steps.len()];
    for (no, step) in (0_u32..).zip(steps) {
        for source in &step.after {
            if let Some(list) = all.get_mut(*source as usize) {
                list.extend(no.to_be_bytes());
            }
        }
    }
    all
}

/// Steps as `joins.taken_steps` reads them.
fn steps(args: &mut Args, steps: &[Step], after: &[Vec<u8>]) {
    args.num(steps.len());
    for (step, after) in steps.iter().zip(after) {
        let m = &step.message;
        args.text(packed([m.id.as_str().as_bytes(), step.name.as_bytes(), m.task.as_bytes()].into_iter()));
        args.text(flags(step)).text(fours(step.after.iter().copied()));
        args.text(plan(step, m)).text(after.as_slice());
    }
}

/// What of a step never changes; see `lua/flows.lua`.
fn flags(step: &Step) -> String {
    let passes = step.message.step.as_ref().is_some_and(|s| s.passes);
    let goes_on = step.on_error == OnError::Continue;
    let marks = [(passes, 'p'), (step.sink, 's'), (step.when == When::Failure, 'f'), (goes_on, 'g')];
    marks.into_iter().filter(|(on, _)| *on).map(|(_, mark)| mark).collect()
}

fn plan(step: &Step, m: &Message) -> Vec<u8> {
    let how = [(step.immutable, "i"), (step.gather, "g")];
    let how: String = how.into_iter().filter(|(on, _)| *on).map(|(_, mark)| mark).collect();
    let num = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    let (delay, lifetime) = (num(step.delay_ms), num(step.expires_ms));
    let fields = message::fields(m);
    let first = [how.as_bytes(), delay.as_bytes(), lifetime.as_bytes(), m.id.as_str().as_bytes()];
    let all: Vec<&[u8]> = first.into_iter().chain(fields.iter().map(Vec::as_slice)).collect();
    packed(all.into_iter())
}

/// A list of texts in `MessagePack`, which the scripts unpack without a loop of their own.
fn packed<'a>(list: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut all = vec![0xdd];
    all.extend(u32::try_from(list.len()).unwrap_or(u32::MAX).to_be_bytes());
    for text in list {
        match u8::try_from(text.len()) {
            Ok(short @ 0..32) => all.push(0xa0 | short),
            _ => {
                all.push(0xdb);
                all.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            }
        }
        all.extend_from_slice(text);
    }
    all
}

/// The arguments of a look.
pub(super) fn look(args: &mut Args, look: &Look) {
    args.text(look.id.as_str()).num(look.from).num(look.limit).flag(look.results);
}

/// What an operation did beside its answer.
pub(super) fn fallout(value: Value) -> Result<Fallout, Odd> {
    if !matches!(value, Value::Array(_)) {
        return Ok(Fallout::default());
    }
    let mut list = Reader::of(value)?;
    Ok(Fallout {
        queues: list.list()?.texts()?,
        next: list.opt_num()?.map(Wall),
        ended: each(list.list()?, |one| Ok((MessageId(one.text()?), state(&one.text()?)?)))?,
        over: each(list.list()?, |one| Ok((MessageId(one.text()?), state(&one.text()?)?)))?,
        fires: each(list.list()?, |one| Ok((one.text()?, MessageId(one.text()?), state(&one.text()?)?)))?,
        reopened: list.list()?.texts()?,
        more: list.num::<u8>()? == 1,
    })
}

fn each<T>(list: Reader, of: impl Fn(&mut Reader) -> Result<T, Odd>) -> Result<Vec<T>, Odd> {
    list.each().map(|value| of(&mut Reader::of(value)?)).collect()
}

fn state(word: &str) -> Result<State, Odd> {
    State::parse(word).ok_or_else(|| Odd::new(format!("a state {word:?}")))
}

/// What is known of a workflow.
pub(super) fn head(mut list: Reader) -> Result<Head, Odd> {
    let mut head = Head {
        id: MessageId(list.text()?),
        name: list.text()?,
        uid: list.opt_num()?,
        launched: Wall(list.num()?),
        steps: list.num()?,
        open: list.num()?,
        failed: list.num()?,
        lost: list.num()?,
        canceled: list.num::<u8>()? == 1,
        finished: list.opt_num()?.map(Wall),
        held: list.num::<u8>()? == 1,
        ..Head::default()
    };
    let (schedule, planned) = (list.text()?, list.opt_num()?.map(Wall));
    head.fired =
        schedule.strip_prefix('=').map(|name| Fired { schedule: name.to_owned(), planned, held: false });
    Ok(head)
}

/// One that may be absent.
fn maybe_head(value: Value) -> Result<Option<Box<Head>>, Odd> {
    if matches!(value, Value::Array(_)) { Ok(Some(Box::new(head(Reader::of(value)?)?))) } else { Ok(None) }
}

/// The replies of the operations on workflows.
pub(super) fn reply(word: &str, mut list: Reader) -> Result<Reply, No> {
    Ok(match word {
        "launched" => Reply::Launched(maybe_head(list.value()?)?),
        "unstaged" => {
            let why =
                format!("the uploaded steps of workflow {} are gone before it was launched", list.text()?);
            return Err(No::Fault(Fault::Again(why)));
        }
        "seen" => {
            let Some(head) = maybe_head(list.value()?)? else { return Ok(Reply::Seen(None)) };
            let steps = each(list.list()?, step_seen)?;
            Reply::Seen(Some(Box::new(Seen { head: *head, steps, next: list.opt_num()? })))
        }
        "flowed" => Reply::Flowed(Flowed {
            head: maybe_head(list.value()?)?,
            steps: list.num()?,
            leased: list.list()?.texts()?.into_iter().map(MessageId).collect(),
            gone: list.num()?,
            next: list.opt_num()?,
        }),
        other => return Err(Odd::new(format!("the word {other:?}")).into()),
    })
}

fn step_seen(list: &mut Reader) -> Result<StepSeen, Odd> {
    let (no, id, name, task) = (list.num()?, MessageId(list.text()?), list.text()?, list.text()?);
    let after = list.bytes()?;
    let four = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).map(u32::from_be_bytes).unwrap_or_default();
    let when = if list.num::<u8>()? == 1 { When::Failure } else { When::Success };
    let stage = match list.text()?.as_str() {
        "PENDING" => Stage::Pending,
        "PUBLISHED" => Stage::Published,
        "SKIPPED" => Stage::Skipped,
        word => Stage::Ended(state(word)?),
    };
    let (now, outcome) = (list.text()?, list.bytes()?);
    Ok(StepSeen {
        no,
        id,
        name,
        task,
        after: after.chunks_exact(4).map(four).collect(),
        when,
        stage,
        state: if now.is_empty() { None } else { Some(state(&now)?) },
        outcome: if outcome.is_empty() { None } else { Some(message::json(&outcome)?) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::joins;

    #[test]
    fn the_scripts_have_the_numbers_of_the_other_stores() {
        let lua = include_str!("lua/flows.lua");
        let names = "joins.PART, joins.LOOK, joins.RESULTS, joins.BYTES, joins.AT_ONCE = ";
        let line = lua.lines().find_map(|line| line.strip_prefix(names)).unwrap();
        let here: Vec<usize> = line.split(", ").map(|n| n.parse().unwrap()).collect();
        let (part, look, results) = (joins::PART, joins::MAX_LOOK, joins::MAX_RESULTS);
        let [part, look, results] = [part, look, results].map(|n| n as usize);
        assert_eq!(here, [part, look, results, crate::model::message::MAX_BYTES, AT_ONCE]);
        let base = include_str!("lua/base.lua");
        assert!(base.contains(&format!("SWEEP = {},", joins::TOLD)), "what an operation tells");
    }

    #[test]
    fn texts_are_packed_with_their_lengths() {
        let long = "x".repeat(40);
        let all = packed([b"ab".as_slice(), b"", long.as_bytes()].into_iter());
        assert_eq!(all.get(..10), Some([0xdd, 0, 0, 0, 3, 0xa2, b'a', b'b', 0xa0, 0xdb].as_slice()));
        assert_eq!(all.get(10..14), Some([0, 0, 0, 40].as_slice()));
        assert_eq!(all.len(), 14 + 40);
    }

    #[test]
    fn large_steps_go_in_parts_and_none_is_left_behind() {
        let step = |bytes: usize| Step {
            message: Message { args: vec![serde_json::json!("x".repeat(bytes))], ..Message::default() },
            ..Step::default()
        };
        assert_eq!(part_of(&vec![step(1); STEPS + 1]), STEPS);
        assert_eq!(part_of(&vec![step(1 << 20); 9]), 3);
        assert_eq!(part_of(&[step(2 * BYTES)]), 1);
        assert!(!fits(&Workflow { steps: vec![step(1 << 20); 9], ..Workflow::default() }));
    }
}
