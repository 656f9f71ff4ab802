//! Arguments of a task on the command line: `key=value`, `key:=json`, positional ones, JSON.

use std::fs::File;
use std::io::{self, Read};

use serde_json::{Map, Value};

use super::output::Failure;
use crate::control::route::check_json;
use crate::model::message::MAX_BYTES;

/// What `enqueue` and `exec` take.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Arguments {
    /// Keyword arguments: KEY=VALUE is a string, KEY:=JSON any JSON value (n:=3, flags:='["a"]').
    #[arg(value_name = "KEY=VALUE")]
    pub pairs: Vec<String>,
    /// Positional arguments, each a string.
    #[arg(last = true, value_name = "POSITIONAL")]
    pub positional: Vec<String>,
    /// More arguments as JSON: an object of keyword arguments or an array of positional ones.
    #[arg(long, value_name = "JSON", conflicts_with = "args_file")]
    pub json_args: Option<String>,
    /// The same from a file; - is stdin.
    #[arg(long, value_name = "FILE")]
    pub args_file: Option<String>,
}

/// Arguments, ready to be bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// Positional ones.
    pub args: Vec<Value>,
    /// Keyword ones.
    pub kwargs: Map<String, Value>,
}

impl Arguments {
    /// Whether none is given in any form.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
            && self.positional.is_empty()
            && self.json_args.is_none()
            && self.args_file.is_none()
    }

    /// Reads them: first the JSON, then the pairs and positional ones.
    ///
    /// # Errors
    /// A pair without `=`, JSON that is none, a key that is given twice, a file that cannot be read.
    pub fn values(&self) -> Result<Values, Failure> {
        let mut values = Values::default();
        if let Some(text) = &self.json_args {
            values.add_json(text).map_err(|why| Failure::data(format!("--json-args: {why}")))?;
        }
        if let Some(name) = &self.args_file {
            let text = read(name)?;
            values.add_json(&text).map_err(|why| Failure::data(format!("{name}: {why}")))?;
        }
        for pair in &self.pairs {
            let (key, value) = split(pair)?;
            if values.kwargs.insert(key.to_owned(), value).is_some() {
                return Err(Failure::usage(format!("the argument {key:?} is given twice")));
            }
        }
        values.args.extend(self.positional.iter().cloned().map(Value::String));
        Ok(values)
    }
}

/// Reads a whole file, or stdin for `-`, of at most the size of a message.
fn read(name: &str) -> Result<String, Failure> {
    let bound = MAX_BYTES as u64 + 1;
    let mut text = String::new();
    let done = if name == "-" {
        io::stdin().lock().take(bound).read_to_string(&mut text)
    } else {
        File::open(name).and_then(|f| f.take(bound).read_to_string(&mut text))
    };
    match done {
        Ok(n) if n > MAX_BYTES => Err(Failure::data(format!("{name} is larger than {MAX_BYTES} bytes"))),
        Ok(_) => Ok(text),
        Err(e) => Err(Failure::no_input(format!("cannot read {name}: {e}"))),
    }
}

/// Refuses JSON that the API would not take, while its text is still there: a number that was read is
/// another one already.
fn accepted(text: &str) -> Result<(), String> {
    check_json(text.as_bytes()).map_err(|e| e.message)
}

/// One `key=value` or `key:=json`. The first `=` ends the key; a colon before it means JSON.
fn split(pair: &str) -> Result<(&str, Value), Failure> {
    if !pair.contains('=') {
        return Err(Failure::usage(format!("the argument {pair:?} is not KEY=VALUE"))
            .hint(format!("positional arguments stand after --: -- {pair}")));
    }
    let (key, value) = split_any(pair)?;
    if key.is_empty() {
        return Err(Failure::usage(format!("the argument {pair:?} has no name before =")));
    }
    Ok((key, value))
}

/// The same where the key may be empty: a positional argument.
///
/// # Errors
/// No `=`; JSON that is none.
pub(super) fn split_any(pair: &str) -> Result<(&str, Value), Failure> {
    let Some((key, value)) = pair.split_once('=') else {
        return Err(Failure::usage(format!("the argument {pair:?} is not KEY=VALUE"))
            .hint(format!("a positional argument stands behind =: ={pair}")));
    };
    let (key, value) = match key.strip_suffix(':') {
        None => (key, Value::String(value.to_owned())),
        Some(key) => {
            accepted(value).map_err(|why| {
                Failure::data(format!("the argument {key}: {why}"))
                    .hint(format!("a string is taken as it is: {key}={value}"))
            })?;
            let parsed = serde_json::from_str(value).map_err(|e| {
                Failure::data(format!("the argument {key} is not JSON: {e}"))
                    .hint(format!("a string needs no JSON: {key}={value}"))
            })?;
            (key, parsed)
        }
    };
    Ok((key, value))
}

impl Values {
    fn add_json(&mut self, text: &str) -> Result<(), String> {
        accepted(text)?;
        match serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))? {
            Value::Array(list) => self.args.extend(list),
            Value::Object(map) => self.kwargs.extend(map),
            _ => return Err("neither an object nor an array".to_owned()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(pairs: &[&str], positional: &[&str], json: Option<&str>) -> Result<Values, u8> {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let arguments = Arguments {
            pairs: own(pairs),
            positional: own(positional),
            json_args: json.map(str::to_owned),
            args_file: None,
        };
        arguments.values().map_err(|f| f.code())
    }

    #[test]
    fn strings_json_and_positions() {
        let v =
            of(&["a=1", "b:=1", "c=", "d=x=y", "e:=[1,{}]"], &["-x", "y=z"], Some("{\"f\":null}")).unwrap();
        assert_eq!(
            Value::Object(v.kwargs),
            serde_json::json!({"a":"1","b":1,"c":"","d":"x=y","e":[1,{}],"f":null})
        );
        assert_eq!(v.args, [Value::from("-x"), Value::from("y=z")]);
        assert_eq!(of(&[], &["b"], Some("[1]")).unwrap().args, [Value::from(1), Value::from("b")]);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert_eq!(of(&["plain"], &[], None), Err(64));
        assert_eq!(of(&["=x"], &[], None), Err(64));
        assert_eq!(of(&[":=1"], &[], None), Err(64));
        assert_eq!(of(&["a=1", "a=2"], &[], None), Err(64));
        assert_eq!(of(&["a=1"], &[], Some("{\"a\":2}")), Err(64));
        assert_eq!(of(&["a:=x"], &[], None), Err(65));
        assert_eq!(of(&[], &[], Some("3")), Err(65));
        assert_eq!(of(&[], &[], Some("{")), Err(65));
    }

    #[test]
    fn whole_numbers_beyond_64_bits_are_refused_and_not_changed() {
        let v = of(&["a:=18446744073709551615", "b:=1e30"], &[], Some("[-9223372036854775808]")).unwrap();
        assert_eq!((&v.kwargs["a"], &v.args[0]), (&Value::from(u64::MAX), &Value::from(i64::MIN)));
        assert_eq!(of(&["a:=18446744073709551616"], &[], None), Err(65));
        assert_eq!(of(&["a:=[{\"b\":-9223372036854775809}]"], &[], None), Err(65));
        assert_eq!(of(&[], &[], Some("[18446744073709551616]")), Err(65));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"{\"n\": 99999999999999999999}").unwrap();
        let args_file = Some(file.path().display().to_string());
        let arguments = Arguments { args_file, ..Arguments::default() };
        assert_eq!(arguments.values().unwrap_err().code(), 65);
    }

    #[test]
    fn a_file_that_is_not_there_is_exit_66() {
        let arguments = Arguments { args_file: Some("/nonexistent/args".into()), ..Arguments::default() };
        assert_eq!(arguments.values().unwrap_err().code(), 66);
    }

    proptest! {
        #[test]
        fn key_and_value_come_back(key in "[^=:\0]{1,20}", value in "[^\0]{0,40}") {
            let pair = format!("{key}={value}");
            prop_assert_eq!(split(&pair).unwrap(), (key.as_str(), Value::String(value)));
        }

        #[test]
        fn json_comes_back(key in "[a-z][a-z0-9_]{0,20}", n: i64, s in ".{0,30}") {
            for value in [Value::from(n), Value::from(s.clone()), serde_json::json!({"a": [n, s]})] {
                let pair = format!("{key}:={value}");
                prop_assert_eq!(split(&pair).unwrap(), (key.as_str(), value));
            }
        }
    }
}
