//! Steps on the command line: `TASK ARGUMENTS… -- TASK ARGUMENTS…`, for chain, group and chord.

use std::io::{BufRead, BufReader, Read};

use serde_json::{Map, Value};

use super::output::Failure;
use super::{arguments, checked, moment};
use crate::control::canvas::{Canvas, StepBody};
use crate::model::workflow::{MAX_STEPS, OnError};

/// What the help of each of these commands says of steps.
pub const GRAMMAR: &str = "\
STEPS
  Steps are separated by --. Options of the command stand before its first task; what follows a
  task's name belongs to its step:
  KEY=VALUE, KEY:=JSON     a keyword argument: a string, or any JSON value
  =VALUE, :=JSON           a positional argument, behind the results of the steps before it
  --immutable              it is not given those results
  --on-error continue      it runs though a step before it failed, with null in that result's place (a
                           program takes null as JSON on stdin only, so it needs --immutable otherwise)
  --queue Q, --priority N  another queue or priority than the task's
  --in DURATION            so long after it could run
  --name TEXT              what `taskd show` calls it
  --link TASK              run this task with its result, beside what follows
  --link-error TASK        run this task with its id when it failed";

/// What stands between two separators.
#[derive(Debug, Default)]
pub struct Segment {
    /// The call.
    pub step: StepBody,
    /// `--each`: a parameter (empty: the first positional argument) and its values.
    pub each: Option<(String, Vec<Value>)>,
    /// `--batch`: a file of arguments.
    pub batch: Option<String>,
    /// `--chunk`: so many values for one call.
    pub chunk: Option<usize>,
}

/// Reads the steps of a command line.
///
/// # Errors
/// What cannot be understood.
pub fn read(words: &[String]) -> Result<Vec<Segment>, Failure> {
    words.split(|w| w == "--").map(segment).collect()
}

/// The same where each stands for itself alone.
///
/// # Errors
/// Also an option that makes many calls of one.
pub fn steps(words: &[String]) -> Result<Vec<StepBody>, Failure> {
    let plain = |s: Segment| match s {
        Segment { each: None, batch: None, chunk: None, step } => Ok(step),
        _ => Err(Failure::usage("--each, --batch and --chunk are for the members of a group or chord")),
    };
    read(words)?.into_iter().map(plain).collect()
}

fn segment(words: &[String]) -> Result<Segment, Failure> {
    let mut words = words.iter();
    let Some(task) = words.next() else {
        return Err(Failure::usage("a step has no task: something must stand between two --"));
    };
    let mut s = Segment::default();
    s.step.task = checked("task name", task)?.to_owned();
    while let Some(word) = words.next() {
        let (option, joined) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let mut value = || {
            joined
                .clone()
                .or_else(|| words.next().cloned())
                .ok_or_else(|| Failure::usage(format!("{option} of step {task} has no value")))
        };
        match option {
            "--immutable" => s.step.immutable = true,
            "--on-error" => {
                s.step.on_error = match value()?.as_str() {
                    "fail" => OnError::Fail,
                    "continue" => OnError::Continue,
                    other => {
                        return Err(Failure::usage(format!("--on-error is fail or continue, not {other:?}")));
                    }
                };
            }
            "--queue" => s.step.queue = Some(checked("queue", &value()?)?.to_owned()),
            "--priority" => {
                let n = value()?.parse().ok().filter(|n| *n <= crate::model::message::MAX_PRIORITY);
                s.step.priority = Some(n.ok_or_else(|| Failure::usage("--priority is 0 to 9"))?);
            }
            "--in" => {
                let text = value()?;
                let delay = moment::duration(&text).map_err(|e| Failure::usage(format!("--in: {e}")))?;
                s.step.delay_ms = Some(moment::millis(delay));
            }
            "--name" => s.step.name = value()?,
            "--link" => s.step.link.push(linked(&value()?)?),
            "--link-error" => s.step.link_error.push(linked(&value()?)?),
            "--each" => s.each = Some(each(&value()?)?),
            "--batch" => s.batch = Some(value()?),
            "--chunk" => {
                let n = value()?.parse().ok().filter(|n| *n > 0);
                s.chunk = Some(n.ok_or_else(|| Failure::usage("--chunk is a number from 1"))?);
            }
            _ if option.starts_with("--") => {
                return Err(Failure::usage(format!("step {task} has no option {option}")).hint(
                    "options of the command stand before its first task; a value stands behind = : =--x",
                ));
            }
            _ => argument(&mut s.step, word)?,
        }
    }
    Ok(s)
}

fn linked(task: &str) -> Result<StepBody, Failure> {
    Ok(StepBody { task: checked("task name", task)?.to_owned(), ..StepBody::default() })
}

/// `KEY=VALUE`, `KEY:=JSON`, `=VALUE` or `:=JSON`.
fn argument(step: &mut StepBody, word: &str) -> Result<(), Failure> {
    let (key, value) = arguments::split_any(word)?;
    if key.is_empty() {
        step.args.push(value);
    } else if step.kwargs.insert(key.to_owned(), value).is_some() {
        return Err(Failure::usage(format!("the argument {key:?} is given twice")));
    }
    Ok(())
}

/// `KEY=A,B,C` or `KEY:=[…]`.
fn each(text: &str) -> Result<(String, Vec<Value>), Failure> {
    let (key, value) = arguments::split_any(text)?;
    let values = match value {
        Value::String(list) => list.split(',').map(Value::from).collect(),
        Value::Array(list) => list,
        _ => return Err(Failure::usage("--each is KEY=A,B,C or KEY:=[JSON, …]")),
    };
    Ok((key.to_owned(), values))
}

impl Segment {
    /// The calls that it stands for: one, or one for each value or line.
    ///
    /// # Errors
    /// A file that cannot be read; a line that is no arguments; too many calls.
    pub fn members(self) -> Result<Vec<Canvas>, Failure> {
        let Self { step, each, batch, chunk } = self;
        let calls = match (each, batch) {
            (None, None) if chunk.is_some() => {
                return Err(Failure::usage("--chunk goes with --each or --batch"));
            }
            (None, None) => vec![step],
            (Some(_), Some(_)) => return Err(Failure::usage("give --each or --batch, not both")),
            (Some((key, values)), None) => {
                let values = chunked(values, chunk);
                values.into_iter().map(|value| with(&step, &key, value)).collect::<Result<_, _>>()?
            }
            (None, Some(file)) => batched(&step, &file, chunk)?,
        };
        if calls.len() > MAX_STEPS {
            return Err(Failure::data(format!("{} calls; at most {MAX_STEPS} make a workflow", calls.len())));
        }
        Ok(calls.into_iter().map(|step| Canvas::Step(Box::new(step))).collect())
    }
}

/// The values, or lists of so many of them.
fn chunked(values: Vec<Value>, chunk: Option<usize>) -> Vec<Value> {
    match chunk {
        None => values,
        Some(n) => values.chunks(n).map(|part| Value::Array(part.to_vec())).collect(),
    }
}

/// The call with one argument more.
fn with(step: &StepBody, key: &str, value: Value) -> Result<StepBody, Failure> {
    let mut step = step.clone();
    if key.is_empty() {
        step.args.push(value);
    } else if step.kwargs.insert(key.to_owned(), value).is_some() {
        return Err(Failure::usage(format!("the argument {key:?} is given twice")));
    }
    Ok(step)
}

/// A call for each line of a file: an object is keyword arguments, an array positional ones, another value one
/// positional argument.
fn batched(step: &StepBody, name: &str, chunk: Option<usize>) -> Result<Vec<StepBody>, Failure> {
    let cannot = |e: std::io::Error| Failure::no_input(format!("cannot read {name}: {e}"));
    let reader: Box<dyn Read> = if name == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(name).map_err(cannot)?)
    };
    let mut values = Vec::new();
    for (at, line) in (1_usize..).zip(BufReader::new(reader).lines()) {
        let line = line.map_err(cannot)?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |why: String| Failure::data(format!("{name}, line {at}: {why}"));
        crate::control::route::check_json(line.as_bytes()).map_err(|e| wrong(e.message))?;
        values.push(serde_json::from_str(&line).map_err(|e| wrong(format!("not JSON: {e}")))?);
        if values.len() > MAX_STEPS * chunk.unwrap_or(1) {
            return Err(Failure::data(format!("{name}: more than {MAX_STEPS} calls")));
        }
    }
    if values.is_empty() {
        return Err(Failure::data(format!("{name} has no line")));
    }
    if chunk.is_some() {
        return chunked(values, chunk).into_iter().map(|value| with(step, "", value)).collect();
    }
    let call = |value: Value| {
        let mut step = step.clone();
        match value {
            Value::Object(more) => extend(&mut step.kwargs, more)?,
            Value::Array(more) => step.args.extend(more),
            other => step.args.push(other),
        }
        Ok(step)
    };
    values.into_iter().map(call).collect()
}

fn extend(kwargs: &mut Map<String, Value>, more: Map<String, Value>) -> Result<(), Failure> {
    for (key, value) in more {
        if kwargs.insert(key.clone(), value).is_some() {
            return Err(Failure::usage(format!("the argument {key:?} is given twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn all(line: &str) -> Result<Value, u8> {
        let mut members = Vec::new();
        for s in read(&words(line)).map_err(|f| f.code())? {
            members.extend(s.members().map_err(|f| f.code())?);
        }
        Ok(serde_json::to_value(members).unwrap())
    }

    #[test]
    fn steps_and_their_options() {
        let line = "fetch url=a=b n:=3 -- resize =x :=[1] --immutable --queue q --priority 9 -- publish \
                    --on-error=continue --in 5s --name p --link a --link-error b";
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            all(&line),
            Ok(json!([
                {"task": "fetch", "kwargs": {"url": "a=b", "n": 3}},
                {"task": "resize", "args": ["x", [1]], "immutable": true, "queue": "q", "priority": 9},
                {"task": "publish", "on_error": "continue", "delay_ms": 5000, "name": "p",
                 "link": [{"task": "a"}], "link_error": [{"task": "b"}]},
            ]))
        );
    }

    #[test]
    fn one_step_may_stand_for_many_calls() {
        let many = |line: &str| all(line).unwrap();
        assert_eq!(
            many("t a=1 --each size=1,2"),
            json!([{"task": "t", "kwargs": {"a": "1", "size": "1"}}, {"task": "t", "kwargs": {"a": "1", "size": "2"}}])
        );
        assert_eq!(many("t --each :=[1,2]"), json!([{"task": "t", "args": [1]}, {"task": "t", "args": [2]}]));
        assert_eq!(
            many("t --each n:=[1,2,3] --chunk 2"),
            json!([{"task": "t", "kwargs": {"n": [1, 2]}}, {"task": "t", "kwargs": {"n": [3]}}])
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"a\":1}\n\n[2,3]\n\"x\"\n").unwrap();
        let name = file.path().display();
        assert_eq!(
            many(&format!("t b=2 --batch {name}")),
            json!([
                {"task": "t", "kwargs": {"a": 1, "b": "2"}},
                {"task": "t", "args": [2, 3], "kwargs": {"b": "2"}},
                {"task": "t", "args": ["x"], "kwargs": {"b": "2"}},
            ])
        );
        assert_eq!(
            many(&format!("t --batch {name} --chunk 2")),
            json!([{"task": "t", "args": [[{"a": 1}, [2, 3]]]}, {"task": "t", "args": [["x"]]}])
        );
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for line in [
            "a -- ",
            "a -- -- b",
            "a plain",
            "a --wait",
            "a --queue",
            "a --on-error maybe",
            "a --priority 10",
            "a x=1 x=2",
            "a --chunk 2",
            "a --each x:=3",
            "a --each x=1 --batch -",
        ] {
            assert_eq!(all(line), Err(64), "{line}");
        }
        assert_eq!(all("a --batch /nonexistent/file"), Err(66));
        assert_eq!(all("a x:=y"), Err(65));
        assert!(steps(&words("a --each x=1,2")).is_err());
    }
}
