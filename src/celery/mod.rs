//! Celery's wire: bytes of its messages, results, events and remote control, read into the model and written back.
//!
//! Pure: no connection, no clock, no randomness. Who calls says what time it is and brings the ids that must be
//! random; ids of follow-ups are derived from the message's own. What a peer sent and taskd does not know is kept to
//! the letter and forwarded ([`json`]); what taskd refuses is a [`fault::Fault`] that says whose it was.
//!
//! | module | what it reads and writes |
//! |---|---|
//! | [`json`] | JSON as Python writes it, kept as text |
//! | [`envelope`] | kombu's envelope: body, headers, properties; entries of its `unacked` hash |
//! | [`content`] | serializers and compressions: which are taken, which refused, and how large a body may become |
//! | [`call`] | one call of a task: protocols 2 and 1, and the model's message |
//! | [`signature`], [`canvas`] | calls that are planned inside calls, and what follows an end |
//! | [`handed`] | what a child that runs an app is told of a client's message |
//! | [`result`] | result metas, exceptions, children, chord parts |
//! | [`event`] | what Flower and `celery events` listen to |
//! | [`control`] | remote control: requests, and the replies to them |
//! | [`moment`], [`repr`] | times as ISO 8601; values in Python's words |
//!
//! Facts were measured with Celery 3.1 to 5.7; `tests/celery/golden/` has the captured messages.

pub mod call;
pub mod canvas;
pub mod content;
pub mod control;
pub mod envelope;
pub mod event;
pub mod fault;
pub mod handed;
pub mod json;
pub mod moment;
pub mod repr;
pub mod result;
pub mod signature;
