//! The OpenAPI 3.1 document, made from the table of routes and the types of [`super::api`]: it cannot
//! say anything else than the server does.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::api::{Error, ErrorKind};
use super::route::{Need, ROUTES, Route, Shape};

/// Every kind of error, as the document lists them.
const KINDS: [ErrorKind; 14] = [
    ErrorKind::BadRequest,
    ErrorKind::BadArguments,
    ErrorKind::Forbidden,
    ErrorKind::UnknownTask,
    ErrorKind::UnknownMessage,
    ErrorKind::UnknownQueue,
    ErrorKind::UnknownSchedule,
    ErrorKind::Conflict,
    ErrorKind::Full,
    ErrorKind::TooLarge,
    ErrorKind::Unavailable,
    ErrorKind::Stopping,
    ErrorKind::Config,
    ErrorKind::Internal,
];

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<Error>();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let operation = operation(route, error.as_value(), &mut generator);
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(route.method.name().to_lowercase(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "taskd control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "HTTP/1.1 with JSON over taskd's unix socket; never over a network. Who asks is \
                known by the socket (SO_PEERCRED, SO_PEERGROUPS), what they may do by [access] in the config \
                and a task's allow. Times are milliseconds since 1970-01-01T00:00:00Z.",
        },
        "servers": [{ "url": "http://taskd", "description": "the unix socket, by default /run/taskd/taskd.sock" }],
        "paths": paths,
        "components": { "schemas": generator.take_definitions(true) },
    })
}

fn operation(route: &Route, error: &Value, generator: &mut schemars::SchemaGenerator) -> Value {
    let mut parameters = Vec::new();
    for segment in route.path.split('/') {
        if let Some(name) = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            parameters.push(json!({
                "name": name, "in": "path", "required": true,
                "schema": { "type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$" },
            }));
        }
    }
    for query in route.query {
        parameters.push(json!({
            "name": query.name, "in": "query", "description": query.about, "schema": { "type": query.kind },
        }));
    }
    let (kind, schema) = match route.answer {
        Shape::Json(schema) => ("application/json", schema(generator)),
        Shape::Lines(schema) => ("application/x-ndjson", schema(generator)),
    };
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({ "description": "Done.", "content": { kind: { "schema": schema } } }),
    );
    for kind in KINDS {
        let name = serde_json::to_value(kind).ok();
        let name = name.as_ref().and_then(Value::as_str).unwrap_or_default();
        let entry = responses.entry(kind.status().to_string()).or_insert_with(
            || json!({ "description": "", "content": { "application/json": { "schema": error } } }),
        );
        if let Some(Value::String(text)) = entry.get_mut("description") {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(name);
        }
    }
    let who = match route.need {
        Need::Read => "Needs [access] read.",
        Need::Enqueue => "Needs [access] enqueue, or a place in the task's allow.",
        Need::Own => {
            "For whoever enqueued the message, and for others by [access] (read to read, admin to change)."
        }
        Need::Admin => "Needs [access] admin.",
    };
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.about,
        "description": who,
        "parameters": parameters,
        "responses": responses,
    });
    if let (Some(body), Some(operation)) = (route.body, operation.as_object_mut()) {
        let schema = (body.schema)(generator);
        operation.insert(
            "requestBody".to_owned(),
            json!({ "required": !body.optional, "content": { "application/json": { "schema": schema } } }),
        );
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` in the document.
    fn refs(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(r)) = map.get("$ref") {
                    out.push(r.clone());
                }
                map.values().for_each(|v| refs(v, out));
            }
            Value::Array(list) => list.iter().for_each(|v| refs(v, out)),
            _ => {}
        }
    }

    #[test]
    fn every_route_is_there_and_every_reference_leads_somewhere() {
        let document = document();
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.name().to_lowercase()];
            assert_eq!(operation["operationId"], route.name);
        }
        let mut all = Vec::new();
        refs(&document, &mut all);
        assert!(all.len() > ROUTES.len());
        for r in all {
            let pointer = r.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{r} leads nowhere");
        }
    }

    #[test]
    fn operation_ids_are_unique() {
        let mut names: Vec<&str> = ROUTES.iter().map(|r| r.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROUTES.len());
    }
}
