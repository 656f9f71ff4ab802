//! Between Python's JSON and `serde_json` values, which the model's messages are made of.

use serde_json::{Map, Number, Value};

use super::{Json, Kind, NotJson, Raw, text};

/// Deepest nesting that becomes a value: what the control API takes, so that nothing that walks values recursively
/// meets a deeper one.
pub const MAX_VALUE_DEPTH: usize = 120;

/// A value, and whether it says all that the text said.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The value. `NaN`, the infinities and numbers that 64 bits do not hold are strings of the same letters:
    /// a program that is given the argument as text sees what the client wrote. U+FFFD stands for lone surrogates.
    pub value: Value,
    /// False where one of these was met.
    pub exact: bool,
}

/// The value of a text.
///
/// # Errors
/// It is nested deeper than [`MAX_VALUE_DEPTH`].
pub fn of(json: Json<'_>) -> Result<Converted, NotJson> {
    let mut exact = true;
    let value = convert(json, 0, &mut exact)?;
    Ok(Converted { value, exact })
}

fn convert(json: Json<'_>, depth: usize, exact: &mut bool) -> Result<Value, NotJson> {
    if depth > MAX_VALUE_DEPTH {
        return Err(NotJson { at: 0, why: "nested too deeply" });
    }
    Ok(match json.kind() {
        Kind::Null => Value::Null,
        Kind::Bool => Value::Bool(json.text() == "true"),
        Kind::Number => number(json.text()).unwrap_or_else(|| {
            *exact = false;
            Value::String(json.text().to_owned())
        }),
        Kind::Text => {
            let (text, whole) = text::decode(json.text());
            *exact &= whole;
            Value::String(text)
        }
        Kind::List => Value::Array(
            json.items()
                .unwrap_or_default()
                .into_iter()
                .map(|item| convert(item, depth + 1, exact))
                .collect::<Result<_, _>>()?,
        ),
        Kind::Object => {
            let mut map = Map::new();
            for (name, value) in json.entries().unwrap_or_default() {
                map.insert(name, convert(value, depth + 1, exact)?);
            }
            Value::Object(map)
        }
    })
}

fn number(text: &str) -> Option<Value> {
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        // Python has no negative zero among its integers.
        let signed = text.parse::<i64>().ok().map(Number::from);
        return signed.or_else(|| text.parse::<u64>().ok().map(Number::from)).map(Value::Number);
    }
    let float: f64 = if text.contains(['N', 'I']) { return None } else { text.parse().ok()? };
    Number::from_f64(float).map(Value::Number)
}

/// The text of a value, in ASCII.
#[must_use]
pub fn write(value: &Value) -> Raw {
    // `Value` has string keys only, so that writing it cannot fail.
    Raw(text::to_ascii(&value.to_string()).into())
}

/// The text of an object.
#[must_use]
pub fn write_map(map: &Map<String, Value>) -> Raw {
    let mut object = super::build::Object::new();
    for (name, value) in map {
        object.put(name, write(value).text());
    }
    object.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_value_cannot_hold_is_said_and_readable() {
        for (text, value, exact) in [
            (
                "[1, -2, 18446744073709551615, 2.5, null, true]",
                json!([1, -2, u64::MAX, 2.5, null, true]),
                true,
            ),
            ("18446744073709551616", json!("18446744073709551616"), false),
            ("[NaN, Infinity, -Infinity]", json!(["NaN", "Infinity", "-Infinity"]), false),
            ("1e400", json!("1e400"), false),
            (r#""\ud800x""#, json!("\u{fffd}x"), false),
            (r#"{"a": 1, "a": 2}"#, json!({"a": 2}), true),
            (
                r#"{"__type__": "uuid", "__value__": {"hex": "0"}}"#,
                json!({"__type__": "uuid", "__value__": {"hex": "0"}}),
                true,
            ),
        ] {
            let converted = of(Json::parse(text).unwrap()).unwrap();
            assert_eq!((converted.value, converted.exact), (value, exact), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(of(Json::parse(&deep).unwrap()).is_err());
    }

    #[test]
    fn values_are_written_in_ascii() {
        let value = json!({"é": [1, "\u{1f600}", -2.5]});
        let raw = write(&value);
        assert!(raw.text().is_ascii());
        assert_eq!(serde_json::from_str::<Value>(raw.text()).unwrap(), value);
    }
}
