//! Calls as messages of protocol 2, such that a Celery worker takes them.

use super::{Call, Protocol};
use crate::celery::envelope::{Address, Envelope};
use crate::celery::json::build::{Object, list, texts};
use crate::celery::json::{Fields, Raw};
use crate::celery::moment::Moment;
use crate::celery::repr;
use crate::celery::signature::{Signature, write_list};
use crate::model::time::Wall;

/// What a message has that a call has not.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// kombu's key of the delivery: unique for each sending.
    pub tag: &'a str,
    /// Who sends it, where the call does not say: `gen<pid>@<host>` of Celery's clients.
    pub origin: &'a str,
    /// How long RabbitMQ keeps it, in milliseconds; Redis does not look at it.
    pub expiration_ms: Option<u64>,
}

impl Call {
    /// The call as a message of protocol 2: all that Celery 5.7 sends, in its order. Its address must have a routing
    /// key by now.
    #[must_use]
    pub fn write(&self, sending: Sending<'_>) -> Envelope {
        let body = list([&self.args, &self.kwargs, &self.embed()]);
        let mut properties = Fields::default();
        properties.set("correlation_id", Raw::of_text(&self.id));
        properties.set("reply_to", Raw::of_text(self.reply_to.as_deref().unwrap_or_default()));
        if let Some(ms) = sending.expiration_ms {
            properties.set("expiration", Raw::of_text(&ms.to_string()));
        }
        for (name, value) in Envelope::properties_to(&self.address, sending.tag, true).iter() {
            properties.set(name, value.to_raw());
        }
        properties.set("priority", Raw::of_int(i64::from(self.priority.min(9))));
        Envelope::new(&body, self.header_fields(sending.origin), properties)
    }

    /// What follows the call: the third part of a body of protocol 2.
    pub(in crate::celery) fn embed(&self) -> Raw {
        let mut object = Object::new()
            .with("callbacks", &write_list(self.callbacks.as_deref()))
            .with("errbacks", &write_list(self.errbacks.as_deref()))
            .with("chain", &write_list(self.chain.as_deref()))
            .with("chord", &self.chord.as_ref().map_or_else(Raw::null, Signature::write));
        if self.protocol == Protocol::Two {
            for (name, value) in self.extra.iter() {
                object = object.with(name, &value.to_raw());
            }
        }
        object.done()
    }

    fn header_fields(&self, origin: &str) -> Fields {
        let option = |text: &Option<String>| Raw::of_option(text.as_deref());
        let moment = |moment: &Option<Moment>| Raw::of_option(moment.as_ref().map(|m| m.text.as_str()));
        let limits = list([&limit(self.time_limit_ms), &limit(self.soft_time_limit_ms)]);
        let args =
            self.args_repr.clone().unwrap_or_else(|| repr::arguments(self.args.json(), repr::MAX_ARGS));
        let kwargs =
            self.kwargs_repr.clone().unwrap_or_else(|| repr::short(self.kwargs.json(), repr::MAX_ARGS));
        let known = [
            ("lang", Raw::of_text("py")),
            ("task", Raw::of_text(&self.task)),
            ("id", Raw::of_text(&self.id)),
            ("shadow", option(&self.shadow)),
            ("eta", moment(&self.eta)),
            ("expires", moment(&self.expires)),
            ("group", option(&self.group)),
            ("group_index", self.group_index.map_or_else(Raw::null, Raw::of_int)),
            ("retries", Raw::of_int(i64::from(self.retries))),
            ("timelimit", limits),
            ("root_id", Raw::of_text(self.root())),
            ("parent_id", option(&self.parent_id)),
            ("argsrepr", Raw::of_text(&args)),
            ("kwargsrepr", Raw::of_text(&kwargs)),
            ("origin", Raw::of_text(self.origin.as_deref().unwrap_or(origin))),
            ("ignore_result", self.ignore_result.map_or_else(Raw::null, Raw::of_bool)),
            ("replaced_task_nesting", Raw::of_int(i64::from(self.replaced_task_nesting))),
            ("stamped_headers", self.stamped_headers.as_ref().map_or_else(Raw::null, texts)),
            ("stamps", self.stamps.to_raw()),
        ];
        let mut fields = self.headers.clone();
        // The client's own come behind; they cannot be one of these.
        fields = known
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .chain(fields.iter().map(|(name, value)| (name.to_owned(), value.to_raw())))
            .collect();
        fields
    }

    /// The call again, as a Celery worker sends a retry: the same id, counted, not before `eta`, as its own child,
    /// straight to the queue it came from, with all that follows it; without what brokers wrote on its way.
    #[must_use]
    pub fn retried(&self, eta: Wall) -> Self {
        Self {
            protocol: Protocol::Two,
            extra: if self.protocol == Protocol::Two { self.extra.clone() } else { Fields::default() },
            retries: self.retries.saturating_add(1),
            eta: Some(Moment::of(eta)),
            root_id: Some(self.root().to_owned()),
            parent_id: Some(self.id.clone()),
            headers: self.headers.filtered(|name| !name.starts_with("x-")),
            address: Address::queue(&self.address.routing_key),
            ..self.clone()
        }
    }
}

/// Milliseconds as Python writes seconds.
fn limit(ms: Option<u64>) -> Raw {
    let Some(ms) = ms else { return Raw::null() };
    match (ms % 1000, i64::try_from(ms / 1000)) {
        (0, Ok(seconds)) => Raw::of_int(seconds),
        _ => Raw::of_float(ms as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::celery::json::Json;

    const SENDING: Sending<'_> = Sending { tag: "t", origin: "taskd@n", expiration_ms: Some(1500) };

    #[test]
    fn a_bare_call_has_all_that_a_worker_needs() {
        let mut call = Call::new("a.b", "i");
        call.args = Raw::parse("[1]").unwrap();
        call.address = Address::queue("q");
        let text = call.write(SENDING).write();
        let json = Json::parse(text.text()).unwrap();
        let properties = json.get("properties").unwrap();
        assert_eq!(properties.get("delivery_tag").unwrap().as_text().unwrap(), "t");
        assert_eq!(properties.get("expiration").unwrap().as_text().unwrap(), "1500");
        assert_eq!(
            properties.get("delivery_info").unwrap().text(),
            r#"{"exchange": "", "routing_key": "q"}"#
        );
        let headers = json.get("headers").unwrap();
        assert_eq!(headers.get("argsrepr").unwrap().as_text().unwrap(), "(1,)");
        assert_eq!(headers.get("root_id").unwrap().as_text().unwrap(), "i");
        assert!(headers.get("ignore_result").unwrap().is_null());
    }

    #[test]
    fn a_retry_drops_what_brokers_wrote() {
        let mut call = Call::new("a", "i");
        call.address = Address { exchange: "e".into(), routing_key: "q".into() };
        call.headers.set("mine", Raw::of_int(1));
        call.headers.set("x-death", Raw::empty_list());
        let again = call.retried(Wall(0));
        assert_eq!((again.retries, again.parent_id.as_deref()), (1, Some("i")));
        assert_eq!(again.address, Address::queue("q"));
        assert_eq!(again.headers.to_raw().text(), r#"{"mine": 1}"#);
    }

    #[test]
    fn seconds_stay_whole_where_they_are() {
        assert_eq!(limit(Some(9000)).text(), "9");
        assert_eq!(limit(Some(9500)).text(), "9.5");
        assert_eq!(limit(None).text(), "null");
    }
}
