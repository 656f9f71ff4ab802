//! Signatures as calls: containers are opened, options merged.

use super::Follow;
use crate::celery::call::{Call, read};
use crate::celery::envelope::Address;
use crate::celery::fault::{Wrong, kind};
use crate::celery::json::build::list;
use crate::celery::json::{Fields, Json, Raw};
use crate::celery::moment::Moment;
use crate::celery::signature::{MAX_NESTING, Shape, Signature, write_list};
use crate::model::name::MessageId;
use crate::model::time::Wall;
use crate::model::workflow::MAX_STEPS;

/// What a signature is given when its time comes.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    /// Stands before its own arguments, unless it is immutable.
    pub args: Vec<Raw>,
    /// What follows it, the next one last.
    pub chain: Option<Vec<Signature>>,
    /// The group it is of, and its place there.
    pub group: Option<(String, i64)>,
    /// What is called once its group has ended.
    pub chord: Option<Signature>,
}

/// Calls in the making.
pub(super) struct Plan<'a> {
    seed: MessageId,
    what: &'static str,
    made: u32,
    /// The call that they follow.
    parent: &'a Call,
    now: Wall,
    follow: Follow,
}

impl<'a> Plan<'a> {
    pub(super) fn new(seed: MessageId, what: &'static str, parent: &'a Call, now: Wall) -> Self {
        Self { seed, what, made: 0, parent, now, follow: Follow::default() }
    }

    pub(super) fn done(self) -> Follow {
        self.follow
    }

    /// An id that nobody chose: the same each time this is planned.
    fn fresh(&mut self) -> String {
        self.made += 1;
        self.seed.follow_up(self.what, self.made).0
    }

    /// Sends one, as a child of the call that it follows.
    pub(super) fn child(&mut self, signature: &Signature, given: Given) -> Result<(), Wrong> {
        let child = self.apply(signature, given, 0)?;
        self.follow.children.push(child);
        Ok(())
    }

    /// Sends several as a group of their own; none: nothing.
    pub(super) fn child_group(&mut self, signatures: &[Signature], given: Given) -> Result<(), Wrong> {
        if signatures.is_empty() {
            return Ok(());
        }
        let group = self.fresh();
        let child = self.group(&group, signatures, &given, 0)?;
        self.follow.children.push(child);
        Ok(())
    }

    /// Sends what a signature stands for. The answer is its result tuple: `[[id, parent], members]`.
    fn apply(&mut self, signature: &Signature, given: Given, depth: usize) -> Result<Raw, Wrong> {
        if depth > MAX_NESTING {
            return Err(Wrong::Canvas { why: "is nested too deeply" });
        }
        match signature.shape() {
            Shape::Call => self.call(signature, given),
            Shape::Chain => self.chain(signature, given, depth),
            Shape::Chord => self.chord(signature, given, depth),
            Shape::Group => {
                let mut given = given;
                if let Some(next) = given.chain.as_mut().and_then(Vec::pop) {
                    // A group that something follows is a chord.
                    return self.chord(&chord_of(signature, &next), given, depth + 1);
                }
                let own = signature.id().unwrap_or_else(|| self.fresh());
                given.chord = given.chord.or(chord_option(signature)?);
                // Where the whole group stands in another's place its members count there.
                let outer =
                    given.group.take().map(|(group, _)| group).or_else(|| signature.options.text("group_id"));
                let group = outer.filter(|_| given.chord.is_some()).unwrap_or(own);
                self.group(&group, &signature.tasks()?, &given, depth)
            }
            Shape::Chunks => {
                let group = self.fresh();
                self.group(&group, &signature.chunks()?, &given, depth)
            }
        }
    }

    fn group(&mut self, id: &str, tasks: &[Signature], given: &Given, depth: usize) -> Result<Raw, Wrong> {
        let mut members = Vec::new();
        for (index, task) in flattened(tasks, depth)?.iter().enumerate() {
            let group = (id.to_owned(), i64::try_from(index).unwrap_or(i64::MAX));
            members.push(self.apply(task, Given { group: Some(group), ..given.clone() }, depth + 1)?);
        }
        Ok(tuple(id, Raw::null(), list(&members)))
    }

    /// Celery's chain container: its tasks in their order, what follows it behind them.
    fn chain(&mut self, signature: &Signature, given: Given, depth: usize) -> Result<Raw, Wrong> {
        let steps = spliced(signature, depth)?;
        let errbacks = option_list(&signature.options, "link_error")?;
        // The list of the message: the next one last.
        let mut rest: Vec<Signature> = Vec::new();
        let count = steps.len();
        for (place, step) in steps.into_iter().enumerate().rev() {
            let empty =
                step.shape() == Shape::Group && flattened(std::slice::from_ref(&step), depth)?.is_empty();
            if empty && count > 1 && (place > 0 || !rest.is_empty()) {
                continue;
            }
            let mut step = match (step.shape(), rest.pop()) {
                (Shape::Group, Some(next)) => chord_of(&step, &next),
                (_, next) => {
                    rest.extend(next);
                    step
                }
            };
            if step.shape() == Shape::Call && step.id().is_none() {
                let id = self.fresh();
                step.options.set("task_id", Raw::of_text(&id));
            }
            if !errbacks.is_empty() {
                extend(&mut step.options, "link_error", &errbacks)?;
            }
            rest.push(step);
        }
        let mut before = given.chain.unwrap_or_default();
        if let Some(last) = rest.first_mut() {
            if let Some(id) = signature.id().filter(|_| last.shape() == Shape::Call) {
                last.options.set("task_id", Raw::of_text(&id));
            }
            extend(&mut last.options, "link", &option_list(&signature.options, "link")?)?;
        }
        // Whoever counts this chain as one of theirs counts its end.
        let end = if before.is_empty() { rest.first_mut() } else { before.first_mut() };
        if let Some(end) = end {
            mark_end(
                end,
                &given.group,
                given.chord.or(chord_option(signature)?).as_ref(),
                &signature.options,
            );
        }
        let tail = if before.is_empty() { rest.first() } else { before.first() };
        let tail = tail.and_then(|tail| (tail.shape() == Shape::Call).then(|| tail.id()).flatten());
        let Some(first) = rest.pop() else {
            return Ok(tuple(&self.fresh(), Raw::null(), list([])));
        };
        let more = !rest.is_empty() || !before.is_empty();
        before.append(&mut rest);
        let own: Vec<Raw> = items(&signature.args);
        let args = if signature.immutable { own } else { given.args.into_iter().chain(own).collect() };
        let head =
            self.apply(&first, Given { args, chain: Some(before), group: None, chord: None }, depth + 1)?;
        Ok(match tail {
            Some(tail) if more => {
                let parent = head.json().items().and_then(|parts| parts.first().map(|part| part.to_raw()));
                tuple(&tail, parent.unwrap_or_else(Raw::null), Raw::null())
            }
            _ => head,
        })
    }

    fn chord(&mut self, signature: &Signature, given: Given, depth: usize) -> Result<Raw, Wrong> {
        let (header, named) = signature.header()?;
        let members = flattened(&header, depth)?;
        let group = named.or_else(|| signature.id()).unwrap_or_else(|| self.fresh());
        let mut body = signature.body()?;
        if body.id().is_none() {
            let id = self.fresh();
            body.options.set("task_id", Raw::of_text(&id));
        }
        for name in ["link", "link_error"] {
            extend(&mut body.options, name, &option_list(&signature.options, name)?)?;
        }
        if let Some(chain) = &given.chain {
            body.options.set("chain", write_list(Some(chain)));
        }
        body.options.set("root_id", Raw::of_text(self.parent.root()));
        let outer = given.chord.clone().or(chord_option(signature)?);
        mark_end(&mut body, &given.group, outer.as_ref(), &signature.options);
        if body.options.some("group_id").is_none() {
            body.options.set("group_id", Raw::of_text(&group));
        }
        let size = members
            .iter()
            .try_fold(0_usize, |sum, member| Ok::<_, Wrong>(sum.saturating_add(member.chord_size(depth)?)))?;
        if size == 0 {
            // Nobody would end it.
            return self.apply(&body, Given { args: vec![Raw::empty_list()], ..Given::default() }, depth + 1);
        }
        self.follow.chords.push((group.clone(), size));
        let id = body.id().unwrap_or_default();
        let given = Given { args: given.args, chain: None, group: None, chord: Some(body) };
        let header = self.group(&group, &members, &given, depth)?;
        Ok(tuple(&id, header, Raw::null()))
    }

    fn call(&mut self, signature: &Signature, given: Given) -> Result<Raw, Wrong> {
        if self.follow.calls.len() >= MAX_STEPS {
            return Err(Wrong::Canvas { why: "sends too many calls at once" });
        }
        let options = &signature.options;
        let id = signature.id().unwrap_or_else(|| self.fresh());
        let mut call = Call::new(&signature.task, &id);
        call.args = signature.args_after(&given.args);
        call.kwargs = signature.kwargs.clone();
        call.root_id = Some(options.text("root_id").unwrap_or_else(|| self.parent.root().to_owned()));
        call.parent_id = Some(options.text("parent_id").unwrap_or_else(|| self.parent.id.clone()));
        // A group that was chosen stays; the place is that of this time.
        let (group, index) = given.group.unzip();
        call.group = options.text("group_id").or(group);
        call.group_index = index.or_else(|| options.get("group_index").and_then(Json::as_i64));
        call.chord = given.chord.or(chord_option(signature)?);
        call.chain = match given.chain {
            Some(chain) => Some(chain),
            None => options.get("chain").map_or(Ok(None), Signature::read_list)?,
        };
        call.callbacks = options.get("link").map_or(Ok(None), Signature::read_list)?;
        call.errbacks = options.get("link_error").map_or(Ok(None), Signature::read_list)?;
        self.sending(&mut call, options)?;
        self.follow.calls.push(call);
        Ok(tuple(&id, Raw::null(), Raw::null()))
    }

    /// The options that say how it is sent.
    fn sending(&self, call: &mut Call, options: &Fields) -> Result<(), Wrong> {
        call.eta = self.time(options.some("countdown").or_else(|| options.some("eta")), "eta")?;
        call.expires = self.time(options.some("expires"), "expires")?;
        call.time_limit_ms = read::seconds(options.get("time_limit"), "time_limit")?;
        call.soft_time_limit_ms = read::seconds(options.get("soft_time_limit"), "soft_time_limit")?;
        let retries = options.get("retries").and_then(Json::as_i64);
        call.retries = retries.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let nesting = options.get("replaced_task_nesting").and_then(Json::as_i64);
        call.replaced_task_nesting = nesting.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        call.shadow = options.text("shadow");
        call.reply_to = options.text("reply_to").filter(|to| !to.is_empty());
        call.ignore_result = Some(options.get("ignore_result").and_then(Json::as_bool).unwrap_or(false));
        let priority = options.get("priority").and_then(Json::as_i64).unwrap_or(0).clamp(0, 9);
        call.priority = u8::try_from(priority).unwrap_or(0);
        call.headers = options.some("headers").and_then(Fields::of).unwrap_or_default();
        if let Some(names) = options.some("stamped_headers") {
            let names = read::texts(names).ok_or_else(|| kind("stamped_headers", "an array of strings"))?;
            let stamp = |name: &String| Some((name.clone(), options.get(name)?.to_raw()));
            call.stamps = names.iter().filter_map(stamp).collect();
            call.stamped_headers = Some(names);
        }
        let exchange = options.text("exchange").unwrap_or_default();
        let queue = options.text("queue").filter(|queue| !queue.is_empty());
        call.address = match (queue, options.text("routing_key")) {
            (Some(queue), _) => Address::queue(&queue),
            (None, routing_key) => Address { exchange, routing_key: routing_key.unwrap_or_default() },
        };
        Ok(())
    }

    /// A time, or seconds from now.
    fn time(&self, value: Option<Json<'_>>, field: &'static str) -> Result<Option<Moment>, Wrong> {
        let Some(value) = value else { return Ok(None) };
        if let Some(text) = value.as_text() {
            let moment = Moment::parse(&text, &jiff::tz::TimeZone::UTC);
            return moment.map(Some).ok_or(Wrong::Time { field, text: crate::celery::content::shown(&text) });
        }
        let ms = read::seconds(Some(value), field)?;
        Ok(ms.map(|ms| Moment::of(self.now.plus(ms))))
    }

    /// The bodies that a chord's body stands for: more than one where it is a group. Each with its id.
    pub(super) fn ends_of(&mut self, body: &Signature, depth: usize) -> Result<Vec<Signature>, Wrong> {
        match body.shape() {
            _ if depth > MAX_NESTING => Err(Wrong::Canvas { why: "is nested too deeply" }),
            Shape::Call => Ok(vec![body.clone()]),
            Shape::Chord => self.ends_of(&body.body()?, depth + 1),
            Shape::Chunks => Ok(Vec::new()),
            Shape::Group | Shape::Chain => {
                let mut ends = Vec::new();
                for task in body.tasks()? {
                    ends.extend(self.ends_of(&task, depth + 1)?);
                }
                Ok(ends)
            }
        }
    }
}

/// `[[id, parent], members]`
fn tuple(id: &str, parent: Raw, members: Raw) -> Raw {
    list([&list([&Raw::of_text(id), &parent]), &members])
}

fn items(args: &Raw) -> Vec<Raw> {
    args.json().items().unwrap_or_default().into_iter().map(Json::to_raw).collect()
}

/// The tasks with those of groups among them in the groups' places.
fn flattened(tasks: &[Signature], depth: usize) -> Result<Vec<Signature>, Wrong> {
    if depth > MAX_NESTING {
        return Err(Wrong::Canvas { why: "is nested too deeply" });
    }
    let mut flat = Vec::new();
    for task in tasks {
        match task.shape() {
            Shape::Group => flat.extend(flattened(&task.tasks()?, depth + 1)?),
            Shape::Chain if task.tasks()?.is_empty() => {}
            _ => flat.push(task.clone()),
        }
    }
    Ok(flat)
}

/// The steps of a chain with those of chains among them in the chains' places.
fn spliced(chain: &Signature, depth: usize) -> Result<Vec<Signature>, Wrong> {
    if depth > MAX_NESTING {
        return Err(Wrong::Canvas { why: "is nested too deeply" });
    }
    let mut steps = Vec::new();
    for step in chain.tasks()? {
        match step.shape() {
            Shape::Chain => steps.extend(spliced(&step, depth + 1)?),
            _ => steps.push(step),
        }
    }
    Ok(steps)
}

/// The chord that a group with something behind it is.
fn chord_of(group: &Signature, body: &Signature) -> Signature {
    let kwargs = [
        ("kwargs".to_owned(), Raw::empty_object()),
        ("header".to_owned(), group.write()),
        ("body".to_owned(), body.write()),
    ];
    let mut chord =
        Signature::new("celery.chord", Raw::empty_list(), kwargs.into_iter().collect::<Fields>().to_raw());
    chord.other.set("subtask_type", Raw::of_text("chord"));
    chord
}

fn chord_option(signature: &Signature) -> Result<Option<Signature>, Wrong> {
    signature.options.some("chord").map(Signature::read).transpose()
}

fn option_list(options: &Fields, name: &str) -> Result<Vec<Signature>, Wrong> {
    Ok(options.get(name).map_or(Ok(None), Signature::read_list)?.unwrap_or_default())
}

/// Adds to a list of callbacks what is not in it.
fn extend(options: &mut Fields, name: &str, more: &[Signature]) -> Result<(), Wrong> {
    if more.is_empty() {
        return Ok(());
    }
    let mut all = option_list(options, name)?;
    for one in more {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
    options.set(name, write_list(Some(&all)));
    Ok(())
}

/// Tells the end of a container which group and chord count it.
fn mark_end(end: &mut Signature, group: &Option<(String, i64)>, chord: Option<&Signature>, own: &Fields) {
    let id = group.as_ref().map(|(id, _)| id.clone()).or_else(|| own.text("group_id"));
    let index =
        group.as_ref().map(|(_, index)| *index).or_else(|| own.get("group_index").and_then(Json::as_i64));
    if let Some(id) = id
        && end.options.some("group_id").is_none()
    {
        end.options.set("group_id", Raw::of_text(&id));
    }
    if let Some(index) = index {
        end.options.set("group_index", Raw::of_int(index));
    }
    if let Some(chord) = chord
        && end.options.some("chord").is_none()
    {
        end.options.set("chord", chord.write());
    }
}
