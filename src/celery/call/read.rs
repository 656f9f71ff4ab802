//! Messages of both protocols as calls.

use jiff::tz::TimeZone;

use super::{Call, Protocol};
use crate::celery::content::shown;
use crate::celery::envelope::Envelope;
use crate::celery::fault::{Fault, Known, Wrong, kind};
use crate::celery::json::{Fields, Json, Kind, Raw};
use crate::celery::moment::Moment;
use crate::celery::signature::Signature;

/// What is taken.
#[derive(Clone, Debug)]
pub struct Taking {
    /// Largest body, in bytes, decompressed.
    pub max_body: usize,
    /// The zone of times without one in messages of protocol 1 that are not in UTC.
    pub zone: TimeZone,
}

/// Headers that describe the call; the others are the client's own.
pub(super) const OURS: &[&str] = &[
    "lang",
    "task",
    "id",
    "shadow",
    "eta",
    "expires",
    "group",
    "group_index",
    "retries",
    "timelimit",
    "root_id",
    "parent_id",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
    "compression",
    "redelivered",
];

/// Members of a body of protocol 1 that are known.
const ONE: &[&str] = &[
    "task",
    "id",
    "args",
    "kwargs",
    "retries",
    "eta",
    "expires",
    "utc",
    "callbacks",
    "errbacks",
    "timelimit",
    "chord",
    "taskset",
    "group",
    "group_index",
    "shadow",
];

impl Call {
    /// The call that a message is.
    ///
    /// # Errors
    /// A serializer, compression, size or shape that is not taken, with what is known of whose it is.
    pub fn read(envelope: &Envelope, taking: &Taking) -> Result<Self, Fault> {
        let known = envelope.known();
        let text = envelope.text(taking.max_body).map_err(|wrong| wrong.of(&known))?;
        let body = Json::parse(&text).map_err(|source| Wrong::Json { part: "body", source }.of(&known))?;
        let mut call = if envelope.headers.some("task").is_some() {
            Self::two(&envelope.headers, body).map_err(|wrong| wrong.of(&known))?
        } else {
            Self::one(body, taking, known)?
        };
        call.reply_to = envelope.reply_to();
        call.priority = envelope.priority();
        call.address = envelope.address();
        if call.protocol == Protocol::One {
            call.headers = envelope.headers.filtered(|name| !OURS.contains(&name));
        }
        Ok(call)
    }

    fn two(headers: &Fields, body: Json<'_>) -> Result<Self, Wrong> {
        let mut call = Self::described(headers, &TimeZone::UTC)?;
        call.args_repr = option(headers, "argsrepr")?;
        call.kwargs_repr = option(headers, "kwargsrepr")?;
        call.root_id = option(headers, "root_id")?;
        call.parent_id = option(headers, "parent_id")?;
        call.origin = option(headers, "origin")?;
        call.ignore_result = truth(headers, "ignore_result")?;
        call.replaced_task_nesting = count(headers, "replaced_task_nesting")?;
        call.stamped_headers = match headers.some("stamped_headers") {
            None => None,
            Some(names) => Some(texts(names).ok_or_else(|| kind("stamped_headers", "an array of strings"))?),
        };
        call.stamps = match headers.some("stamps") {
            None => Fields::default(),
            Some(stamps) => Fields::of(stamps).ok_or_else(|| kind("stamps", "an object"))?,
        };
        call.headers = headers.filtered(|name| !OURS.contains(&name));
        let parts = body.items().unwrap_or_default();
        let [args, kwargs, embed] = parts.as_slice() else {
            return Err(kind("the body", "an array of arguments, keyword arguments and callbacks"));
        };
        call.take_arguments(Some(*args), Some(*kwargs))?;
        let embed = if embed.is_null() { Some(Fields::default()) } else { Fields::of(*embed) };
        let embed = embed.ok_or_else(|| kind("the body's third element", "an object"))?;
        call.take_canvas(&embed)?;
        call.extra = embed.filtered(|name| !["callbacks", "errbacks", "chain", "chord"].contains(&name));
        Ok(call)
    }

    fn one(body: Json<'_>, taking: &Taking, mut known: Known) -> Result<Self, Fault> {
        let fields = Fields::of(body).ok_or_else(|| {
            // Without the header it may be either; a list is what protocol 2 sends.
            let wrong = if body.kind() == Kind::List {
                Wrong::Missing("the header task")
            } else {
                kind("the body", "an object (protocol 1) or an array (protocol 2)")
            };
            wrong.of(&known)
        })?;
        known.id = fields.text("id").filter(|id| !id.is_empty()).or(known.id);
        known.task = fields.text("task").filter(|task| !task.is_empty());
        let utc = fields.get("utc").and_then(Json::as_bool).unwrap_or(true);
        let zone = if utc { &TimeZone::UTC } else { &taking.zone };
        let call = || {
            let mut call = Self::described(&fields, zone)?;
            call.protocol = Protocol::One;
            if call.group.is_none() {
                call.group = option(&fields, "taskset")?;
            }
            call.take_arguments(fields.some("args"), fields.some("kwargs"))?;
            call.take_canvas(&fields.filtered(|name| name != "chain"))?;
            call.extra = fields.filtered(|name| !ONE.contains(&name));
            Ok(call)
        };
        call().map_err(|wrong: Wrong| wrong.of(&known))
    }

    /// What both protocols say in the same words.
    fn described(fields: &Fields, zone: &TimeZone) -> Result<Self, Wrong> {
        let task = must(fields, "task", "the task's name")?;
        let id = must(fields, "id", "the task's id")?;
        let mut call = Self::new(&task, &id);
        call.shadow = option(fields, "shadow")?;
        call.eta = moment(fields, "eta", zone)?;
        call.expires = moment(fields, "expires", zone)?;
        call.group = option(fields, "group")?;
        call.group_index = match fields.some("group_index") {
            None => None,
            Some(index) => Some(index.as_i64().ok_or_else(|| kind("group_index", "an integer"))?),
        };
        call.retries = count(fields, "retries")?;
        if let Some(limits) = fields.some("timelimit") {
            let limits = limits.items().ok_or_else(|| kind("timelimit", "an array"))?;
            // The hard one stands first.
            call.time_limit_ms = seconds(limits.first().copied(), "timelimit")?;
            call.soft_time_limit_ms = seconds(limits.get(1).copied(), "timelimit")?;
        }
        Ok(call)
    }

    fn take_arguments(&mut self, args: Option<Json<'_>>, kwargs: Option<Json<'_>>) -> Result<(), Wrong> {
        let take = |value: Option<Json<'_>>, want, what, empty| match value {
            None => Ok(empty),
            Some(value) if value.is_null() => Ok(empty),
            Some(value) if value.kind() == want => Ok(value.to_raw()),
            Some(_) => Err(kind(what, want.word())),
        };
        self.args = take(args, Kind::List, "the arguments", Raw::empty_list())?;
        self.kwargs = take(kwargs, Kind::Object, "the keyword arguments", Raw::empty_object())?;
        Ok(())
    }

    fn take_canvas(&mut self, embed: &Fields) -> Result<(), Wrong> {
        let list = |name| embed.get(name).map_or(Ok(None), Signature::read_list);
        self.callbacks = list("callbacks")?;
        self.errbacks = list("errbacks")?;
        self.chain = list("chain")?;
        self.chord = embed.some("chord").map(Signature::read).transpose()?;
        Ok(())
    }
}

fn must(fields: &Fields, name: &str, what: &'static str) -> Result<String, Wrong> {
    let value = fields.some(name).ok_or(Wrong::Missing(what))?;
    let text = value.as_text().ok_or_else(|| kind(what, "a string"))?;
    if text.is_empty() { Err(Wrong::Missing(what)) } else { Ok(text) }
}

fn option(fields: &Fields, name: &'static str) -> Result<Option<String>, Wrong> {
    let Some(value) = fields.some(name) else { return Ok(None) };
    value.as_text().map(Some).ok_or_else(|| kind(name, "a string"))
}

fn truth(fields: &Fields, name: &'static str) -> Result<Option<bool>, Wrong> {
    let Some(value) = fields.some(name) else { return Ok(None) };
    value.as_bool().map(Some).ok_or_else(|| kind(name, "true, false or null"))
}

fn count(fields: &Fields, name: &'static str) -> Result<u32, Wrong> {
    let Some(value) = fields.some(name) else { return Ok(0) };
    value.as_i64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| kind(name, "a number from 0"))
}

fn moment(fields: &Fields, name: &'static str, zone: &TimeZone) -> Result<Option<Moment>, Wrong> {
    let Some(value) = fields.some(name) else { return Ok(None) };
    let text = value.as_text().ok_or_else(|| kind(name, "a time as a string"))?;
    if text.is_empty() {
        return Ok(None);
    }
    let time = Moment::parse(&text, zone);
    time.map(Some).ok_or_else(|| Wrong::Time { field: name, text: shown(&text) })
}

/// Seconds as milliseconds; Python takes 0 for no limit.
pub(in crate::celery) fn seconds(value: Option<Json<'_>>, name: &'static str) -> Result<Option<u64>, Wrong> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let wrong = || kind(name, "seconds, from 0");
    let seconds = value.as_f64().ok_or_else(wrong)?;
    if !(0.0..1e12).contains(&seconds) {
        return Err(wrong());
    }
    // In range: below 1e15 milliseconds.
    let ms = (seconds * 1000.0).ceil() as u64;
    Ok((ms > 0).then_some(ms))
}

/// The strings of an array of strings; one alone counts as one.
pub(in crate::celery) fn texts(json: Json<'_>) -> Option<Vec<String>> {
    match json.kind() {
        Kind::Text => Some(vec![json.as_text()?]),
        _ => json.items()?.into_iter().map(Json::as_text).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &str, body: &str) -> Result<Call, Fault> {
        let fields = |text| Fields::of(Json::parse(text).unwrap()).unwrap();
        let body = Raw::parse(body).unwrap();
        let properties =
            fields(r#"{"correlation_id": "c", "delivery_info": {"exchange": "", "routing_key": "q"}}"#);
        let envelope = Envelope::new(&body, fields(headers), properties);
        Call::read(&envelope, &Taking { max_body: 1000, zone: TimeZone::fixed(jiff::tz::offset(2)) })
    }

    #[test]
    fn the_least_that_is_a_call() {
        let call = read(r#"{"task": "a", "id": "i"}"#, "[[], {}, {}]").unwrap();
        assert_eq!(
            (call.task.as_str(), call.id.as_str(), call.address.routing_key.as_str()),
            ("a", "i", "q")
        );
        assert_eq!((call.ignore_result, call.root(), call.shown()), (None, "i", "a"));
    }

    #[test]
    fn what_is_no_call_says_why_and_whose() {
        for (headers, body, said, id) in [
            (r#"{"task": "a", "id": "i"}"#, "[[], {}]", "the body must be", "i"),
            (r#"{"task": "a", "id": "i"}"#, "[{}, {}, {}]", "the arguments must be an array", "i"),
            (r#"{"task": "a", "id": "i"}"#, "[[], [], {}]", "the keyword arguments", "i"),
            (r#"{"task": "a", "id": "i"}"#, "[[], {}, 1]", "third element", "i"),
            (r#"{"task": "a", "id": "i"}"#, r#"[[], {}, {"chain": [1]}]"#, "a signature must be", "i"),
            (r#"{"task": "a"}"#, "[[], {}, {}]", "the task's id is missing", "c"),
            (r#"{"task": 5, "id": "i"}"#, "[[], {}, {}]", "the task's name must be", "i"),
            (r#"{"task": "a", "id": "i", "eta": "soon"}"#, "[[], {}, {}]", "eta is no time", "i"),
            (r#"{"task": "a", "id": "i", "retries": -1}"#, "[[], {}, {}]", "retries", "i"),
            (r#"{"task": "a", "id": "i", "timelimit": [-1]}"#, "[[], {}, {}]", "timelimit", "i"),
            ("{}", "[[], {}, {}]", "the header task is missing", "c"),
            ("{}", "5", "an object (protocol 1)", "c"),
            ("{}", r#"{"id": "j"}"#, "the task's name is missing", "j"),
        ] {
            let fault = read(headers, body).unwrap_err();
            assert!(fault.to_string().contains(said), "{headers} {body}: {fault}");
            assert_eq!(fault.known.id.as_deref(), Some(id), "{headers} {body}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_of_the_protocols_zone() {
        let eta = "2026-11-22T12:58:17";
        let two = read(&format!(r#"{{"task": "a", "id": "i", "eta": "{eta}"}}"#), "[[], {}, {}]").unwrap();
        let one = |utc| {
            read("{}", &format!(r#"{{"task": "a", "id": "i", "eta": "{eta}", "utc": {utc}}}"#)).unwrap()
        };
        let ms = |call: Call| call.eta.unwrap().at.0;
        let there = ms(two);
        assert_eq!(there, 1_795_352_297_000);
        assert_eq!(ms(one(true)), there);
        assert_eq!(ms(one(false)), there - 2 * 3_600_000);
    }

    #[test]
    fn limits_are_hard_first_and_none_where_zero() {
        let call = read(r#"{"task": "a", "id": "i", "timelimit": [9.5, 8]}"#, "[[], {}, {}]").unwrap();
        assert_eq!((call.time_limit_ms, call.soft_time_limit_ms), (Some(9500), Some(8000)));
        let call = read(r#"{"task": "a", "id": "i", "timelimit": [0, null]}"#, "[[], {}, {}]").unwrap();
        assert_eq!((call.time_limit_ms, call.soft_time_limit_ms), (None, None));
    }
}
