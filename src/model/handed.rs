//! Arguments of a step before it is known what the steps before it hand on: what can be checked of them already.

use serde_json::{Map, Value};

use super::params::bind;
use super::task::Task;

/// Binds what is given of a call whose first positional argument comes later.
///
/// # Errors
/// Everything that is wrong whatever comes, a line each.
pub fn bind_later(task: &Task, args: &[Value], kwargs: &Map<String, Value>) -> Result<(), Vec<String>> {
    let Some(first) = task.params.first() else {
        return bind(task, args, kwargs).map(drop);
    };
    // The task as it is without its first parameter, which the result becomes.
    let mut faults = Vec::new();
    if kwargs.contains_key(&first.name) {
        faults.push(format!(
            "{}: is given by name, and by position by the result of the step before (immutable = true keeps that out)",
            first.name
        ));
    }
    let mut rest = task.clone();
    rest.params.remove(0);
    let mut named = kwargs.clone();
    named.remove(&first.name);
    if rest.params.is_empty() {
        if !args.is_empty() {
            faults.push(format!(
                "{} positional arguments are given behind the result of the step before; the task takes that only ({})",
                args.len(),
                first.name
            ));
        }
        faults.extend(
            named.keys().map(|name| format!("{name}: is no parameter of this task ({})", first.name)),
        );
    } else {
        faults.extend(bind(&rest, args, &named).err().into_iter().flatten());
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::{Param, ParamType};
    use crate::model::task::Program;
    use serde_json::json;

    fn task(params: &[(&str, ParamType)]) -> Task {
        let param = |(name, kind): &(&str, ParamType)| Param {
            name: (*name).to_owned(),
            kind: *kind,
            default: None,
            one_of: Vec::new(),
            min: None,
            max: None,
            max_length: None,
        };
        Task {
            params: params.iter().map(param).collect(),
            ..Task::new("t", Program::Exec(vec!["x".into(), "{a}".into()]))
        }
    }

    #[test]
    fn what_is_given_is_checked_and_what_comes_is_not() {
        let two = task(&[("a", ParamType::Int), ("b", ParamType::Int)]);
        let check = |args: &[Value], kwargs: Value| {
            bind_later(&two, args, kwargs.as_object().unwrap()).map_err(|f| f.join("; "))
        };
        assert_eq!(check(&[json!(1)], json!({})), Ok(()));
        assert_eq!(check(&[], json!({"b": "7"})), Ok(()));
        assert!(check(&[], json!({})).unwrap_err().contains("b: is missing"));
        assert!(check(&[json!("x")], json!({})).unwrap_err().contains("b: must be a whole number"));
        assert!(check(&[json!(1)], json!({"a": 1})).unwrap_err().contains("a: is given by name"));
        assert!(check(&[json!(1), json!(2)], json!({})).is_err());
        assert!(check(&[json!(1)], json!({"c": 1})).unwrap_err().contains("c: is no parameter"));
        let one = task(&[("a", ParamType::Int)]);
        assert_eq!(bind_later(&one, &[], &Map::new()), Ok(()));
        assert!(bind_later(&one, &[json!(1)], &Map::new()).is_err());
    }
}
