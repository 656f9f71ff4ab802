//! Declared parameters and the one place where arguments are bound to them: used at enqueue (to refuse),
//! by the runner (to build argv and environment) and by `taskd exec`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::task::{Program, Stdin, Task};
use super::template::{self, Piece};

/// Longest element of an argv or an environment, its final NUL included: the kernel's `MAX_ARG_STRLEN`
/// (execve(2): 32 pages).
pub const MAX_ARG: usize = 128 << 10;

/// Most bytes of argv and parameters together, each counted with its NUL and its pointer. The kernel allows
/// a quarter of the stack limit (2 MiB by default) for these and the environment.
pub const MAX_ARGV: usize = 1536 << 10;

/// At most this many faults are told of one call; the rest is counted.
const MAX_FAULTS: usize = 32;

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    /// A string without NUL.
    String,
    /// A whole number (i64), also given as a string by the CLI.
    Int,
    /// A finite number.
    Float,
    /// `true` or `false`.
    Bool,
}

impl ParamType {
    const fn words(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Int => "a whole number",
            Self::Float => "a number",
            Self::Bool => "true or false",
        }
    }
}

/// A declared parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Param {
    /// Its name, `[a-z][a-z0-9_]*`.
    pub name: String,
    /// Its type.
    pub kind: ParamType,
    /// Used when it is not given; without one it must be given.
    pub default: Option<Value>,
    /// The only values allowed; empty: any.
    pub one_of: Vec<Value>,
    /// Least value (numbers).
    pub min: Option<f64>,
    /// Greatest value (numbers).
    pub max: Option<f64>,
    /// Most characters (strings).
    pub max_length: Option<u64>,
}

// f64 bounds come from TOML, where NaN is refused by `taskd check`: equality is total.
impl Eq for Param {}

impl Param {
    /// The value in the parameter's own type, or what is wrong with it (a sentence without a subject).
    ///
    /// # Errors
    /// The first rule of the declaration that the value breaks.
    pub fn accept(&self, value: &Value) -> Result<Value, String> {
        let typed = self
            .typed(value)
            .ok_or_else(|| format!("must be {}, not {}", self.kind.words(), shown(value)))?;
        if typed.as_str().is_some_and(|s| s.contains('\0')) {
            return Err("has a NUL byte".into());
        }
        if let (Some(n), Some(min)) = (typed.as_f64(), self.min)
            && n < min
        {
            return Err(format!("must be at least {min}, not {}", shown(value)));
        }
        if let (Some(n), Some(max)) = (typed.as_f64(), self.max)
            && n > max
        {
            return Err(format!("must be at most {max}, not {}", shown(value)));
        }
        if let (Some(s), Some(most)) = (typed.as_str(), self.max_length) {
            let length = s.chars().count() as u64;
            if length > most {
                return Err(format!("must have at most {most} characters, not {length}"));
            }
        }
        if !self.one_of.is_empty() && !self.one_of.iter().any(|v| self.typed(v).as_ref() == Some(&typed)) {
            let allowed: Vec<String> = self.one_of.iter().map(shown).collect();
            return Err(format!("must be one of {}, not {}", allowed.join(", "), shown(value)));
        }
        Ok(typed)
    }

    /// Numbers and booleans are also taken from strings: that is how a command line gives them.
    fn typed(&self, value: &Value) -> Option<Value> {
        match (self.kind, value) {
            (ParamType::String, Value::String(_)) | (ParamType::Bool, Value::Bool(_)) => Some(value.clone()),
            (ParamType::Int, Value::Number(n)) => n.as_i64().map(Value::from),
            (ParamType::Int, Value::String(s)) => s.parse::<i64>().ok().map(Value::from),
            (ParamType::Float, Value::Number(n)) => n.as_f64().filter(|n| n.is_finite()).map(Value::from),
            (ParamType::Float, Value::String(s)) => {
                s.parse::<f64>().ok().filter(|n| n.is_finite()).map(Value::from)
            }
            (ParamType::Bool, Value::String(s)) => s.parse::<bool>().ok().map(Value::from),
            _ => None,
        }
    }
}

/// Arguments that fit a task's declaration, in their declared types.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Positional arguments, as given but typed (for the JSON on stdin).
    pub args: Vec<Value>,
    /// Keyword arguments, typed, and defaults of what was not given (for the JSON on stdin).
    pub kwargs: Map<String, Value>,
    /// Every declared parameter with its text, in declared order.
    params: Vec<(String, String)>,
    /// What is appended to an `exec` without placeholders and becomes `"$1" "$2" …` of a `command`.
    operands: Vec<String>,
}

/// Binds the arguments of a call to a task's declaration.
///
/// # Errors
/// Everything that is wrong with them, a line each, all in one answer (at most 32 lines and a count).
pub fn bind(task: &Task, args: &[Value], kwargs: &Map<String, Value>) -> Result<Bound, Vec<String>> {
    let mut faults = Vec::new();
    let bound = if task.params.is_empty() {
        bind_free(task, args, kwargs, &mut faults)
    } else {
        bind_declared(task, args, kwargs, &mut faults)
    };
    if faults.is_empty() {
        bound.check_dashes(task, &mut faults);
        bound.check_sizes(task, &mut faults);
    }
    if faults.is_empty() {
        return Ok(bound);
    }
    if faults.len() > MAX_FAULTS {
        let more = faults.len() - MAX_FAULTS;
        faults.truncate(MAX_FAULTS);
        faults.push(format!("and {more} more"));
    }
    Err(faults)
}

/// No parameters are declared: anything goes that has a way to the program.
fn bind_free(task: &Task, args: &[Value], kwargs: &Map<String, Value>, faults: &mut Vec<String>) -> Bound {
    // A resident worker gets the values themselves, a program with `stdin = "json"` too.
    let as_json = task.stdin == Stdin::Json || task.program == Program::Worker;
    let mut operands = Vec::new();
    if task.program != Program::Worker {
        for (i, value) in args.iter().enumerate() {
            match value {
                Value::Null | Value::Array(_) | Value::Object(_) if !as_json => faults.push(format!(
                    "argument {}: is {}; only strings, numbers and booleans can be arguments of a program \
                     (with stdin = \"json\" it gets any value)",
                    i + 1,
                    shown(value)
                )),
                Value::String(s) if s.contains('\0') => {
                    faults.push(format!("argument {}: has a NUL byte", i + 1));
                }
                _ => operands.push(text(value)),
            }
        }
    }
    if !as_json {
        for name in kwargs.keys() {
            faults.push(format!(
                "{}: the task declares no parameters, so it takes no arguments by name \
                 (declare params.{}, or stdin = \"json\")",
                clipped(name),
                clipped(name)
            ));
        }
    }
    Bound { args: args.to_vec(), kwargs: kwargs.clone(), params: Vec::new(), operands }
}

fn bind_declared(
    task: &Task,
    args: &[Value],
    kwargs: &Map<String, Value>,
    faults: &mut Vec<String>,
) -> Bound {
    let mut bound = Bound {
        args: Vec::with_capacity(args.len()),
        kwargs: Map::new(),
        params: Vec::with_capacity(task.params.len()),
        operands: Vec::new(),
    };
    for (i, param) in task.params.iter().enumerate() {
        let (positional, named) = (args.get(i), kwargs.get(&param.name));
        let value = match (positional, named, &param.default) {
            (Some(_), Some(_), _) => {
                faults.push(format!("{}: is given twice, by position and by name", param.name));
                continue;
            }
            (Some(v), None, _) | (None, Some(v), _) | (None, None, Some(v)) => v,
            (None, None, None) => {
                faults.push(format!("{}: is missing ({})", param.name, param.kind.words()));
                continue;
            }
        };
        match param.accept(value) {
            Ok(typed) => {
                let text = text(&typed);
                // By position or by name, the program sees the same call; where the JSON on stdin carries
                // what was named, only what was given by position is appended as well.
                if positional.is_some() || task.stdin == Stdin::None {
                    bound.operands.push(text.clone());
                }
                bound.params.push((param.name.clone(), text));
                if positional.is_some() {
                    bound.args.push(typed);
                } else {
                    bound.kwargs.insert(param.name.clone(), typed);
                }
            }
            Err(why) => faults.push(format!("{}: {why}", param.name)),
        }
    }
    if args.len() > task.params.len() {
        faults.push(format!(
            "{} positional arguments are given, the task takes at most {} ({})",
            args.len(),
            task.params.len(),
            names(task)
        ));
    }
    for name in kwargs.keys().filter(|k| !task.params.iter().any(|p| p.name == **k)) {
        faults.push(format!("{}: is no parameter of this task ({})", clipped(name), names(task)));
    }
    bound
}

fn names(task: &Task) -> String {
    task.params.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ")
}

impl Bound {
    /// The argv of one run; empty for a task of a resident worker. Its length depends on the task and on
    /// the number of arguments only, never on their values.
    #[must_use]
    pub fn argv(&self, task: &Task) -> Vec<String> {
        match &task.program {
            Program::Worker => Vec::new(),
            // $0 is the task's name: the shell's own messages begin with it.
            Program::Command(text) => ["/bin/sh", "-c", text, &task.name]
                .into_iter()
                .map(str::to_owned)
                .chain(self.operands.iter().cloned())
                .collect(),
            Program::Exec(elements) => {
                let mut argv: Vec<String> = elements.iter().map(|e| self.fill(e)).collect();
                if !template::any_placeholder(elements) && !self.operands.is_empty() {
                    if task.dash_dash {
                        argv.push("--".to_owned());
                    }
                    argv.extend(self.operands.iter().cloned());
                }
                argv
            }
        }
    }

    /// Environment variables of a `command`: its parameters under their own names.
    #[must_use]
    pub fn environment(&self, task: &Task) -> &[(String, String)] {
        if matches!(task.program, Program::Command(_)) { &self.params } else { &[] }
    }

    fn fill(&self, element: &str) -> String {
        template::parse(element)
            .into_iter()
            .map(|piece| match piece {
                Piece::Text(t) => t,
                Piece::Param(name) => self.value(&name).to_owned(),
            })
            .collect()
    }

    fn value(&self, name: &str) -> &str {
        self.params.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// A value must not become an option of the program: where it begins its element, and where it is
    /// appended without `--` before it.
    fn check_dashes(&self, task: &Task, faults: &mut Vec<String>) {
        let Program::Exec(elements) = &task.program else { return };
        if task.allow_dash {
            return;
        }
        for element in elements {
            let filled = self.fill(element);
            if !filled.starts_with('-') {
                continue;
            }
            // The first piece that is not empty text: an empty value lets the next one begin the element.
            for piece in template::parse(element) {
                match piece {
                    Piece::Text(_) => break,
                    Piece::Param(name) if self.value(&name).is_empty() => {}
                    Piece::Param(name) => {
                        faults.push(format!(
                            "{name}: {} begins with \"-\" and would be read as an option of the program \
                             (allow_dash = true permits it)",
                            shown(&Value::from(self.value(&name)))
                        ));
                        break;
                    }
                }
            }
            // An empty value before literal text that begins with a dash would make an option as well.
            let by_text = matches!(
                template::parse(element).iter().find(|p| match p {
                    Piece::Text(_) => true,
                    Piece::Param(n) => !self.value(n).is_empty(),
                }),
                Some(Piece::Text(_))
            );
            if by_text && !element.starts_with('-') {
                faults.push(format!(
                    "an empty value makes {} an option of the program (allow_dash = true permits it)",
                    shown(&Value::from(filled))
                ));
            }
        }
        if !task.dash_dash && !template::any_placeholder(elements) {
            for value in self.operands.iter().filter(|v| v.starts_with('-')) {
                faults.push(format!(
                    "{} begins with \"-\" and would be read as an option of the program \
                     (dash_dash = true puts -- before it, allow_dash = true permits it)",
                    shown(&Value::from(value.as_str()))
                ));
            }
        }
    }

    fn check_sizes(&self, task: &Task, faults: &mut Vec<String>) {
        let pointer = size_of::<usize>();
        let mut total = 0_usize;
        let argv = self.argv(task);
        for (i, element) in argv.iter().enumerate() {
            total = total.saturating_add(element.len() + 1 + pointer);
            if element.len() >= MAX_ARG {
                faults.push(format!(
                    "element {i} of the command line has {} bytes, the kernel takes at most {} \
                     (stdin = \"json\" has no such bound)",
                    element.len(),
                    MAX_ARG - 1
                ));
            }
        }
        for (name, value) in self.environment(task) {
            let length = name.len() + 1 + value.len();
            total = total.saturating_add(length + 1 + pointer);
            if length >= MAX_ARG {
                faults.push(format!(
                    "{name}: has {} bytes, the kernel takes at most {} in the environment",
                    value.len(),
                    MAX_ARG - 2 - name.len()
                ));
            }
        }
        if total > MAX_ARGV {
            faults.push(format!(
                "the arguments need {total} bytes on the command line, at most {MAX_ARGV} fit \
                 (stdin = \"json\" has no such bound)"
            ));
        }
    }
}

/// The names of the placeholders of one element of `exec`, in their order, for `taskd check`.
///
/// # Errors
/// Why the element cannot be one: a NUL byte, or longer than the kernel takes.
pub fn check_template(element: &str) -> Result<Vec<String>, String> {
    if element.contains('\0') {
        return Err("has a NUL byte".into());
    }
    if element.len() >= MAX_ARG {
        return Err(format!("has {} bytes, the kernel takes at most {}", element.len(), MAX_ARG - 1));
    }
    Ok(template::parse(element)
        .into_iter()
        .filter_map(|p| match p {
            Piece::Param(name) => Some(name),
            Piece::Text(_) => None,
        })
        .collect())
}

/// A value as it stands in an argv: strings as they are, everything else as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// A value in a message for people: JSON, cut.
fn shown(value: &Value) -> String {
    clipped(&value.to_string())
}

fn clipped(s: &str) -> String {
    const MOST: usize = 60;
    let safe: String = s.chars().take(MOST).map(|c| if c.is_control() { '?' } else { c }).collect();
    if s.chars().nth(MOST).is_some() { format!("{safe}…") } else { safe }
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
