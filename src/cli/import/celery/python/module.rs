//! What a module says to Celery: settings, periodic tasks, decorated functions.

use super::expression::{Expression, Node, Parser};
use super::token::{Kind, Token, Tokens, tokens};
use super::value::Names;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Names and what they stand for.
    pub names: Names,
    /// Settings of Celery by the name that stands in the file; the flag says that Celery's `conf` has them.
    pub settings: Vec<Setting>,
    /// `add_periodic_task(…)`.
    pub periodic: Vec<Call>,
    /// Functions with a decorator that makes a task of them.
    pub tasks: Vec<Decorated>,
    /// Comments that stand alone on their line.
    pub comments: Vec<(usize, String)>,
}

/// A setting.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its name, as it stands there.
    pub name: String,
    /// A key within it: `CELERYBEAT_SCHEDULE['x'] = …`.
    pub key: Option<Expression>,
    /// Its value.
    pub value: Expression,
    /// It belongs to `app.conf`, so every name is Celery's.
    pub of_conf: bool,
    /// It is added to what is there: `.update(…)`.
    pub adds: bool,
}

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Positional arguments.
    pub positional: Vec<Expression>,
    /// Keyword arguments.
    pub named: Vec<(String, Expression)>,
    /// Its line, from 1.
    pub line: usize,
    /// Where it begins and ends, in bytes.
    pub place: (usize, usize),
}

/// A decorated function.
#[derive(Clone, Debug)]
pub struct Decorated {
    /// Its name.
    pub function: String,
    /// The decorator, as `app.task`.
    pub decorator: String,
    /// The decorator's keyword arguments.
    pub options: Vec<(String, Expression)>,
    /// Its line, from 1.
    pub line: usize,
    /// The decorator in the text, in bytes.
    pub place: (usize, usize),
}

/// Reads a module.
#[must_use]
pub fn read(text: &str) -> Module {
    let Tokens { lines, comments } = tokens(text);
    let mut module = Module { comments, ..Module::default() };
    let mut decorators: Vec<Decorated> = Vec::new();
    // The class that a line is in, and how far that is indented.
    let mut class: Option<(usize, String)> = None;
    for (indent, line) in &lines {
        class = class.filter(|(of, _)| indent > of);
        let word = |i: usize| match line.get(i).map(|t| &t.kind) {
            Some(Kind::Name(name)) => name.as_str(),
            _ => "",
        };
        match word(0) {
            "import" | "from" => import(line, &mut module.names),
            "def" | "async" | "class" => {
                let name = if word(0) == "async" { word(2) } else { word(1) };
                for mut decorated in decorators.drain(..) {
                    name.clone_into(&mut decorated.function);
                    module.tasks.push(decorated);
                }
                if word(0) == "class" {
                    class = Some((*indent, name.to_owned()));
                }
            }
            _ if matches!(line.first().map(|t| &t.kind), Some(Kind::Op("@"))) => {
                decorators.extend(decorator(line));
            }
            _ => {
                decorators.clear();
                statement(line, class.as_ref().map(|(_, name)| name.as_str()), &mut module);
            }
        }
    }
    module
}

fn decorator(line: &[Token]) -> Option<Decorated> {
    let mut parser = Parser::new(line, 1);
    let name = parser.dotted()?;
    let last = name.rsplit('.').next().unwrap_or(&name);
    let named = if parser.take("(") { parser.arguments().1 } else { Vec::new() };
    let place = (line.first()?.start, line.last()?.end);
    let is_task = matches!(last, "task" | "shared_task" | "periodic_task" | "crontab_task");
    is_task.then(|| Decorated {
        function: String::new(),
        decorator: name,
        options: named,
        line: line.first().map_or(0, |t| t.line),
        place,
    })
}

/// `import a.b as c`, `from a import b as c, d`.
fn import(line: &[Token], names: &mut Names) {
    let mut parser = Parser::new(line, 1);
    let from = matches!(line.first().map(|t| &t.kind), Some(Kind::Name(n)) if n == "from");
    let mut module = String::new();
    if from {
        while parser.take(".") || parser.take("...") {}
        module = parser.dotted().filter(|m| m != "import").unwrap_or_default();
        // `from . import x` has read `import` as the module's name already.
        if !module.is_empty() {
            parser.dotted();
        }
        parser.take("(");
    }
    while let Some(name) = parser.dotted() {
        let mut known = name.clone();
        if matches!(line.get(parser.at).map(|t| &t.kind), Some(Kind::Name(n)) if n == "as") {
            parser.at += 1;
            known = parser.dotted().unwrap_or(known);
        }
        if from {
            let whole = if module.is_empty() { name } else { format!("{module}.{name}") };
            names.imports.insert(known, whole);
        } else if known != name {
            names.imports.insert(known, name);
        }
        if !parser.take(",") {
            break;
        }
    }
}

/// `target = value`, `target: type = value`, `call(…)`.
fn statement(line: &[Token], class: Option<&str>, module: &mut Module) {
    let mut parser = Parser::new(line, 0);
    let mut targets: Vec<(String, Option<Expression>)> = Vec::new();
    loop {
        let start = parser.at;
        let Some(name) = parser.dotted() else { break };
        let mut key = None;
        if parser.take("[") {
            key = Some(parser.element(false));
            if !parser.take("]") {
                return;
            }
        } else if parser.is("(") {
            if targets.is_empty() {
                parser.take("(");
                call(&name, line, &mut parser, module);
                return;
            }
            parser.at = start;
            break;
        }
        if parser.is(":") && targets.is_empty() {
            // An annotation ends at the `=`.
            let equals = line.iter().position(|t| t.kind == Kind::Op("="));
            let Some(equals) = equals.filter(|at| *at > parser.at) else { return };
            parser.at = equals;
        }
        if !parser.take("=") {
            parser.at = start;
            break;
        }
        targets.push((name, key));
    }
    if targets.is_empty() {
        return;
    }
    let value = tuple(&mut parser);
    for (name, key) in targets {
        assign(&name, class, key, value.clone(), module);
    }
}

/// A value, or several without parentheses.
fn tuple(parser: &mut Parser<'_>) -> Expression {
    let first = parser.element(false);
    if !parser.is(",") {
        return first;
    }
    let (start, line) = (first.start, first.line);
    let mut items = vec![first];
    while parser.take(",") {
        let before = parser.at;
        let next = parser.element(false);
        if parser.at == before {
            break;
        }
        items.push(next);
    }
    let end = items.last().map_or(start, |e| e.end);
    Expression { node: Node::List(items), start, end, line }
}

/// The setting that a target names: `app.conf.x`, `app.conf['x']`, `X`.
fn assign(name: &str, class: Option<&str>, key: Option<Expression>, value: Expression, module: &mut Module) {
    let last = name.rsplit('.').next().unwrap_or(name);
    if (last == "conf" || last == "config")
        && let Some(Node::Text(setting)) = key.as_ref().map(|k| &k.node)
    {
        let name = setting.clone();
        module.settings.push(Setting { name, key: None, value, of_conf: last == "conf", adds: false });
        return;
    }
    if key.is_none() {
        if let Some(class) = class {
            module.names.constants.insert(format!("{class}.{name}"), value.clone());
        }
        module.names.constants.insert(name.to_owned(), value.clone());
    }
    let of_conf = name.rsplit('.').nth(1) == Some("conf");
    let adds = key.is_some();
    module.settings.push(Setting { name: last.to_owned(), key, value, of_conf, adds });
}

fn call(name: &str, line: &[Token], parser: &mut Parser<'_>, module: &mut Module) {
    let (positional, named) = parser.arguments();
    let mut parts = name.rsplit('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("add_periodic_task"), ..) => {
            let place = (line.first().map_or(0, |t| t.start), line.last().map_or(0, |t| t.end));
            let line = line.first().map_or(0, |t| t.line);
            module.periodic.push(Call { positional, named, line, place });
        }
        (Some("update" | "config_from_object" | "from_mapping"), Some("conf"), _) => {
            for (name, value) in named {
                if name == "**" {
                    dict(&value, module);
                } else {
                    module.settings.push(Setting { name, key: None, value, of_conf: true, adds: false });
                }
            }
            for value in &positional {
                dict(value, module);
            }
        }
        (Some("update"), Some(setting), owner) => {
            for value in positional {
                let (name, of_conf) = (setting.to_owned(), owner == Some("conf"));
                module.settings.push(Setting { name, key: None, value, of_conf, adds: true });
            }
        }
        _ => {}
    }
}

/// The entries of a dict that is given to `conf.update`.
fn dict(value: &Expression, module: &mut Module) {
    let names = module.names.clone();
    let Ok(entries) = names.entries(value) else { return };
    for (name, value) in entries {
        module.settings.push(Setting { name, key: None, value: value.clone(), of_conf: true, adds: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_wherever_they_stand() {
        let found = read(
            "from celery.schedules import crontab as ct, schedule\nfrom . import x\nfrom .tasks import add\nimport datetime as dt\n\
             CELERY_TIMEZONE: str = 'UTC'\napp.conf.beat_schedule = {'a': {}}\napp.conf['task_routes'] = {}\n\
             app.conf.update(timezone='UTC', **{'b': 1})\nCELERYBEAT_SCHEDULE['x'] = {}\nbeat_schedule.update({'y': {}})\n\
             class Config:\n    A = B = 1, 2\nif x == 1:\n    print('x')\n",
        );
        let names: Vec<String> = found
            .settings
            .iter()
            .map(|s| {
                format!("{}{}{}", s.name, if s.of_conf { "*" } else { "" }, if s.adds { "+" } else { "" })
            })
            .collect();
        assert_eq!(
            names,
            [
                "CELERY_TIMEZONE",
                "beat_schedule*",
                "task_routes*",
                "timezone*",
                "b*",
                "CELERYBEAT_SCHEDULE+",
                "beat_schedule+",
                "A",
                "B"
            ]
        );
        assert_eq!(found.names.whole("ct"), "celery.schedules.crontab");
        assert_eq!(found.names.whole("add"), "tasks.add");
        assert_eq!(found.names.whole("dt.timedelta"), "datetime.timedelta");
    }

    #[test]
    fn decorated_functions_and_periodic_tasks() {
        let found = read(
            "@app.task(bind=True, rate_limit='10/m')\n@other\nasync def a(self): pass\n@shared_task\ndef b(): pass\n@property\ndef c(): pass\n\
             @app.on_after_configure.connect\ndef setup(sender, **kw):\n    sender.add_periodic_task(10.0, add.s(1), name='x')\n",
        );
        let tasks: Vec<(&str, usize)> =
            found.tasks.iter().map(|t| (t.function.as_str(), t.options.len())).collect();
        assert_eq!(tasks, [("a", 2), ("b", 0)]);
        assert_eq!((found.periodic.len(), found.periodic[0].positional.len()), (1, 2));
    }
}
