//! What is wrong with something that a peer sent, and what is known of it all the same.

use super::json::NotJson;
use super::result::exception::Exception;

/// Something that cannot be taken, and what could be read of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}")]
pub struct Fault {
    /// What is wrong.
    pub wrong: Wrong,
    /// Whose it was: with an id a FAILURE can be written, so that whoever waits for it is answered.
    pub known: Box<Known>,
}

/// What could be read of a message that cannot be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The task id: of the headers, or the correlation id, which is the same in both protocols.
    pub id: Option<String>,
    /// The task's name.
    pub task: Option<String>,
    /// Where the client waits for its result (`rpc://`).
    pub reply_to: Option<String>,
    /// kombu's key of the delivery.
    pub delivery_tag: Option<String>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Not JSON where it must be.
    #[error("the {part} is {source}")]
    Json {
        /// Of what.
        part: &'static str,
        /// Where and why.
        source: NotJson,
    },
    /// Bytes that are no text in the declared encoding.
    #[error("the {part} is not valid UTF-8")]
    NotText {
        /// Of what.
        part: &'static str,
    },
    /// Not base64 where it must be.
    #[error("the body is not base64")]
    Base64,
    /// Something must be there and is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value of another kind than it must be.
    #[error("{field} must be {want}")]
    Kind {
        /// Of what.
        field: String,
        /// What it must be.
        want: &'static str,
    },
    /// A time that cannot be read.
    #[error("{field} is no time that ISO 8601 knows: {text:?}")]
    Time {
        /// Of what.
        field: &'static str,
        /// As it was sent, cut.
        text: String,
    },
    /// A name or an id that taskd does not take.
    #[error("{field} {why}")]
    Name {
        /// Of what.
        field: &'static str,
        /// Why not.
        why: String,
    },
    /// A serializer that can do harm when it is read.
    #[error(
        "the content type {content_type} is refused: reading pickle runs what it says; send JSON (task_serializer = 'json')"
    )]
    Pickle {
        /// As it was sent.
        content_type: String,
    },
    /// A serializer that taskd does not read.
    #[error("the content type {content_type} is not read; send JSON (task_serializer = 'json')")]
    ContentType {
        /// As it was sent.
        content_type: String,
    },
    /// A character encoding that taskd does not read.
    #[error("the content encoding {encoding} is not read; send utf-8")]
    ContentEncoding {
        /// As it was sent.
        encoding: String,
    },
    /// A compression that taskd does not read.
    #[error(
        "the compression {compression} is not read; send it as gzip or not compressed (task_compression)"
    )]
    Compression {
        /// As it was sent.
        compression: String,
    },
    /// Compressed bytes that are not.
    #[error("the {compression} data is broken")]
    Broken {
        /// Which compression.
        compression: &'static str,
    },
    /// More than is taken.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// The most that is taken.
        limit: usize,
    },
    /// One of Celery's own tasks, where no Celery app runs.
    #[error(
        "{task} is one of Celery's own tasks, which run in a Celery app, and the queue {queue} has no pool with `celery_app`: send it to one that has, or call the task itself for each element, as a group"
    )]
    NoApp {
        /// The task.
        task: String,
        /// Where it was sent.
        queue: String,
    },
    /// Planned calls that contain one another too deeply, or are too many.
    #[error("the workflow of the message {why}")]
    Canvas {
        /// What about it.
        why: &'static str,
    },
}

impl Wrong {
    /// The fault where nothing is known of whose it is.
    #[must_use]
    pub fn alone(self) -> Fault {
        Fault { wrong: self, known: Box::default() }
    }

    /// The fault of what is known so far.
    #[must_use]
    pub fn of(self, known: &Known) -> Fault {
        Fault { wrong: self, known: Box::new(known.clone()) }
    }

    /// What a Python client gets: the class that its own worker would have raised on reading it.
    #[must_use]
    pub fn exception(&self) -> Exception {
        let (module, kind) = match self {
            Self::Pickle { .. } | Self::ContentType { .. } => ("kombu.exceptions", "ContentDisallowed"),
            Self::Json { .. }
            | Self::NotText { .. }
            | Self::Base64
            | Self::ContentEncoding { .. }
            | Self::Compression { .. }
            | Self::Broken { .. } => ("kombu.exceptions", "DecodeError"),
            Self::NoApp { .. } => ("celery.exceptions", "NotRegistered"),
            Self::Missing(_)
            | Self::Kind { .. }
            | Self::Time { .. }
            | Self::Name { .. }
            | Self::TooLarge { .. }
            | Self::Canvas { .. } => ("celery.exceptions", "InvalidTaskError"),
        };
        Exception::new(module, kind, [self.to_string()])
    }
}

/// What a field must be and is not.
#[must_use]
pub fn kind(field: &str, want: &'static str) -> Wrong {
    Wrong::Kind { field: field.to_owned(), want }
}
