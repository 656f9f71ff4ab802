//! The config file: text -> checked -> [`settings::Settings`], with every fault at once.
//!
//! [`keys`] says every table and key once. [`load`] reads `/etc/taskd.toml` and then `/etc/taskd.d/*.toml`
//! in name order and lays them over one another: later wins by key, and `[[routes]]` of a later file come
//! first, so that they win too. What the check must know of the machine comes in through [`Env`]; [`Home`] says
//! where all of it is, for the system's taskd and for a user's own.

mod build;
mod changes;
mod check;
pub mod credential;
mod credential_places;
mod credential_source;
mod env;
mod external;
mod home;
pub mod keys;
mod kind;
mod limits;
mod load;
pub mod notify;
mod origin;
mod ownership;
mod params;
mod placeholder;
mod pool;
mod program;
pub mod redis;
mod report;
mod schedule;
mod schema;
mod secret;
mod section;
pub mod settings;
mod source;
mod task;
mod throttle;
mod told;
mod tree;
mod unique;
mod users;
pub mod values;
mod workflow;

pub use changes::changes;
pub use check::NOT_YET;
pub use credential_source::{CredentialSource, DIRECTORY};
pub use env::{DAEMON_USER, Env, TASK_USER};
pub use home::{DEFAULT_SOCKET, DEFAULT_STATE_DIR, Home};
pub use load::{Loaded, load, load_texts, show, show_json};
pub use origin::Origin;
pub use ownership::ownership_fault;
pub use params::PARAM;
pub use pool::SCRIPT;
pub use report::{Fault, FaultKind, Report};
pub use schema::schema;
pub use secret::{Secret, Secrets};
pub use source::{DEFAULT_FILE, Source};
