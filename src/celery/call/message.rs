//! Between calls and the model's messages.

use serde_json::{Map, Value};

use super::{Call, Order, read};
use crate::celery::envelope::Address;
use crate::celery::fault::{Fault, Known, Wrong};
use crate::celery::json::{Json, value};
use crate::celery::moment::Moment;
use crate::model::message::{MAX_BYTES, Message};
use crate::model::name::{MessageId, check};
use crate::model::time::Wall;

/// The model's message of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Modeled {
    /// The message. What a call says beyond it stays in the call.
    pub message: Message,
    /// Whether its arguments say all that the call's say; see [`value::Converted`].
    pub exact: bool,
}

impl Call {
    /// The message of this call, waiting in `queue` since `now`.
    ///
    /// # Errors
    /// A task's name or an id that is none in taskd, arguments that are too deep or too large.
    pub fn model(&self, queue: &str, now: Wall, order: Order) -> Result<Modeled, Fault> {
        self.modeled(queue, now, order).map_err(|wrong| wrong.of(&self.known()))
    }

    fn modeled(&self, queue: &str, now: Wall, order: Order) -> Result<Modeled, Wrong> {
        let name = |field, text| check(text).map_err(|why| Wrong::Name { field, why: why.to_string() });
        name("the task's name", &self.task)?;
        name("the task's id", &self.id)?;
        let mut exact = true;
        let mut convert = |json: Json<'_>| {
            let converted = value::of(json).map_err(|source| Wrong::Json { part: "body", source })?;
            exact &= converted.exact;
            Ok::<Value, Wrong>(converted.value)
        };
        let args = match convert(self.args.json())? {
            Value::Array(args) => args,
            _ => Vec::new(),
        };
        let kwargs = match convert(self.kwargs.json())? {
            Value::Object(kwargs) => kwargs,
            _ => Map::new(),
        };
        let mut headers = Map::new();
        for (name, json) in self.headers.iter() {
            headers.insert(name.to_owned(), convert(json)?);
        }
        let message = Message {
            id: MessageId(self.id.clone()),
            task: self.task.clone(),
            queue: queue.to_owned(),
            args,
            kwargs,
            priority: order.turn(self.priority),
            eta: self.eta.as_ref().map(|eta| eta.at),
            expires: self.expires.as_ref().map(|expires| expires.at),
            enqueued: now,
            retries: self.retries,
            time_limit_ms: self.time_limit_ms,
            soft_time_limit_ms: self.soft_time_limit_ms,
            headers,
            ..Message::default()
        };
        if message.size() > MAX_BYTES {
            return Err(Wrong::TooLarge { limit: MAX_BYTES });
        }
        Ok(Modeled { message, exact })
    }

    /// What is known of whose it is.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            id: Some(self.id.clone()),
            task: Some(self.task.clone()),
            reply_to: self.reply_to.clone(),
            delivery_tag: None,
        }
    }

    /// The call that a message of taskd's own is, for a broker that Celery shares.
    #[must_use]
    pub fn of_message(message: &Message, order: Order) -> Self {
        let mut call = Self::new(&message.task, message.id.as_str());
        call.args = value::write(&Value::Array(message.args.clone()));
        call.kwargs = value::write_map(&message.kwargs);
        call.eta = message.eta.map(Moment::of);
        call.expires = message.expires.map(Moment::of);
        call.retries = message.retries;
        (call.time_limit_ms, call.soft_time_limit_ms) = (message.time_limit_ms, message.soft_time_limit_ms);
        call.root_id = Some(call.id.clone());
        call.ignore_result = Some(false);
        call.priority = order.turn(message.priority);
        call.address = Address::queue(&message.queue);
        // A header of Celery's own name would say something else than its sender meant.
        call.headers = message
            .headers
            .iter()
            .filter(|(name, _)| !read::OURS.contains(&name.as_str()))
            .map(|(name, json)| (name.clone(), value::write(json)))
            .collect();
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::celery::json::Raw;
    use serde_json::json;

    #[test]
    fn a_message_goes_there_and_back() {
        let message = Message {
            id: MessageId("i".into()),
            task: "a.b".into(),
            queue: "q".into(),
            args: vec![json!(1), json!("é"), json!({"x": [null]})],
            kwargs: json!({"k": 2.5}).as_object().cloned().unwrap(),
            priority: 7,
            eta: Some(Wall(1_795_352_297_539)),
            expires: Some(Wall(1_795_352_298_000)),
            enqueued: Wall(5),
            retries: 2,
            time_limit_ms: Some(9_500),
            soft_time_limit_ms: Some(8_000),
            headers: json!({"mine": 1, "task": "evil", "x": null}).as_object().cloned().unwrap(),
            ..Message::default()
        };
        for order in [Order::LowFirst, Order::HighFirst] {
            let call = Call::of_message(&message, order);
            assert_eq!(call.priority, if order == Order::LowFirst { 2 } else { 7 });
            let back = call.model("q", Wall(5), order).unwrap();
            assert!(back.exact);
            let mut want = message.clone();
            want.headers.remove("task");
            assert_eq!(back.message, want);
        }
    }

    #[test]
    fn what_is_no_name_or_too_large_is_refused() {
        let refused = |task: &str, id: &str, args: &str| {
            let mut call = Call::new(task, id);
            call.args = Raw::parse(args).unwrap();
            call.model("q", Wall(0), Order::LowFirst).unwrap_err()
        };
        assert!(refused("a b", "i", "[]").to_string().contains("the task's name"));
        assert!(refused("a", "../i", "[]").to_string().contains("the task's id"));
        let large = format!("[\"{}\"]", "x".repeat(MAX_BYTES));
        let fault = refused("a", "i", &large);
        assert_eq!(
            (fault.wrong, fault.known.id.as_deref()),
            (Wrong::TooLarge { limit: MAX_BYTES }, Some("i"))
        );
        let deep = format!("[{}{}]", "[".repeat(500), "]".repeat(500));
        assert!(refused("a", "i", &deep).to_string().contains("too deeply"));
    }
}
