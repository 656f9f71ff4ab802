//! The JSON Schema of the file, so that editors complete and explain it.

use serde_json::{Map, Value, json};

use super::check::NOT_YET;
use super::keys::{Key, Kind, STEP, Shape, TABLES, TableSpec, When};
use super::params::{PARAM, TYPE_NAMES};

const DURATION: &str = r"^\s*([0-9]+(\.[0-9]+)?\s*[a-z]+\s*)+$";
const SIZE: &str = r"^\s*[0-9]+(\.[0-9]+)?\s*([KkMmGgTt]([Ii]?[Bb])?|[Bb])?\s*$";
const RATE: &str = r"^\s*[0-9]+\s*/\s*[smhd]\s*$";
const NAME: &str = r"^[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,127}$";
const CREDENTIAL: &str = r"^[ -.0-9;-~]{1,255}$";

/// The JSON Schema (draft 2020-12) of the config file.
#[must_use]
pub fn schema() -> Value {
    let mut properties = Map::new();
    for spec in TABLES {
        let one = object(spec);
        let table = match spec.shape {
            Shape::One => one,
            Shape::Named => json!({"type": "object", "description": spec.doc, "additionalProperties": one}),
            Shape::List => json!({"type": "array", "description": spec.doc, "items": one}),
        };
        properties.insert(spec.name.to_owned(), table);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "taskd.toml",
        "description": "The config file of taskd.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

fn object(spec: &TableSpec) -> Value {
    let mut object = of_keys(spec.keys, spec.open);
    let doc = if spec.when == When::Later { format!("{} {NOT_YET}.", spec.doc) } else { spec.doc.to_owned() };
    put(&mut object, "description", doc.into());
    if !spec.required.is_empty() {
        put(&mut object, "required", json!(spec.required));
    }
    if !spec.one_of.is_empty() {
        let one: Vec<Value> = spec.one_of.iter().map(|key| json!({"required": [key]})).collect();
        put(&mut object, "oneOf", one.into());
    }
    object
}

fn of_keys(keys: &[Key], open: bool) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|k| (k.name.to_owned(), of_key(k))).collect();
    json!({"type": "object", "properties": properties, "additionalProperties": open})
}

fn of_key(key: &Key) -> Value {
    let mut value = of_kind(key.kind);
    let doc = if key.when == When::Later { format!("{} {NOT_YET}.", key.doc) } else { key.doc.to_owned() };
    put(&mut value, "description", doc.into());
    if let Some(default) = toml_to_json(key.default) {
        put(&mut value, "default", default);
    }
    value
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

/// A default of the list of keys as JSON.
fn toml_to_json(text: &str) -> Option<Value> {
    let text = format!("x = {text}");
    let table = toml::de::DeTable::parse(&text).ok()?;
    let (table, _) = super::tree::from_toml(table.get_ref(), 0);
    table.entries.first().map(|e| e.node.value.to_json())
}

fn of_kind(kind: Kind) -> Value {
    let list = |items: Value| json!({"type": "array", "items": items});
    let text = || json!({"type": "string", "minLength": 1});
    match kind {
        Kind::Text | Kind::Zone | Kind::User | Kind::GroupName | Kind::Signal | Kind::Cron => text(),
        Kind::Name => json!({"type": "string", "pattern": NAME}),
        Kind::Glob => text(),
        Kind::Path | Kind::SocketPath => json!({"type": "string", "pattern": "^/"}),
        Kind::Groups | Kind::People | Kind::Texts | Kind::EnvironmentNames => list(text()),
        Kind::Credentials => list(json!({"type": "string", "pattern": CREDENTIAL})),
        Kind::Names => list(json!({"type": "string", "pattern": NAME})),
        Kind::Paths => list(json!({"type": "string", "pattern": "^/"})),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Number(min, max) if min == f64::MIN && max == f64::MAX => json!({"type": "number"}),
        Kind::Number(min, max) => json!({"type": "number", "minimum": min, "maximum": max}),
        Kind::Duration(..) => json!({"type": "string", "pattern": DURATION, "examples": ["90s", "1h 30m"]}),
        Kind::Size(..) => json!({"anyOf": [
            {"type": "string", "pattern": SIZE, "examples": ["300M"]},
            {"type": "integer", "minimum": 0},
        ]}),
        Kind::SizeOrTimes => json!({"type": ["string", "integer"]}),
        Kind::Rate => json!({"type": "string", "pattern": RATE, "examples": ["10/m"]}),
        Kind::Choice(words) => json!({"enum": words}),
        Kind::Address(words, schemes) => json!({"anyOf": [
            {"enum": words},
            {"type": "string", "pattern": format!("^({})://", schemes.join("|").replace('+', r"\+"))},
        ]}),
        Kind::BoolOr(words) => json!({"anyOf": [{"type": "boolean"}, {"enum": words}]}),
        Kind::Argv => json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
        Kind::Codes => list(json!({"type": "integer", "minimum": 1, "maximum": 255})),
        Kind::Umask => json!({"type": "string", "pattern": "^[0-7]{1,4}$"}),
        Kind::Environment => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Params => params(),
        Kind::TimesOfDay => {
            let time = json!({"type": "string", "pattern": "^[0-2]?[0-9]:[0-5][0-9]$"});
            json!({"anyOf": [time, list(time.clone())]})
        }
        Kind::Program => json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
        Kind::Webhook => json!({"type": "string", "pattern": r"^(https?://|\$\{credential:)"}),
        Kind::Secret => json!({"type": "string", "pattern": r"\$\{credential:"}),
        Kind::Mail => text(),
        Kind::Mails => json!({"anyOf": [text(), list(text())]}),
        Kind::Percent => json!({"type": "string", "pattern": "^[0-9]+\\s*%$"}),
        Kind::Degrees(most) => json!({"type": "number", "minimum": -most, "maximum": most}),
        Kind::List => json!({"type": "array"}),
        Kind::Dict => json!({"type": "object"}),
        Kind::Table(keys) => of_keys(keys, false),
        Kind::BoolOrTable(keys) => json!({"anyOf": [{"type": "boolean"}, of_keys(keys, false)]}),
        Kind::TableOrFalse(keys) => json!({"anyOf": [of_keys(keys, false), {"const": false}]}),
        Kind::Steps => {
            let mut step = of_keys(STEP, false);
            put(&mut step, "required", json!(["task"]));
            json!({"type": "array", "items": step, "minItems": 1})
        }
    }
}

fn params() -> Value {
    let mut long = of_keys(PARAM, false);
    put(&mut long, "required", json!(["type"]));
    // Their type is that of the parameter, which a schema cannot say.
    if let Some(properties) = long.get_mut("properties") {
        put(properties, "default", json!({"type": ["string", "number", "boolean"]}));
        put(properties, "one_of", json!({"type": "array", "minItems": 1}));
    }
    json!({
        "type": "object",
        "propertyNames": {"pattern": "^[a-z][a-z0-9_]*$"},
        "additionalProperties": {"anyOf": [{"enum": TYPE_NAMES}, long]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_schema_with_its_sentence() {
        let schema = schema();
        for spec in TABLES {
            let table = &schema["properties"][spec.name];
            let one = match spec.shape {
                Shape::One => table,
                Shape::Named => &table["additionalProperties"],
                Shape::List => &table["items"],
            };
            assert_eq!(one["additionalProperties"], json!(spec.open), "{}", spec.name);
            for key in spec.keys {
                let text = one["properties"][key.name]["description"].as_str().unwrap();
                assert!(text.starts_with(key.doc));
                assert_eq!(text.contains(NOT_YET), key.when == When::Later);
            }
        }
        assert_eq!(schema["properties"]["taskd"]["properties"]["shutdown_grace"]["default"], json!("30s"));
        assert_eq!(schema["properties"]["results"]["properties"]["max_records"]["default"], json!(100_000));
    }
}
