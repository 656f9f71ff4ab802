//! Processes: the launcher, the runner, what they say to each other and to the daemon. The only room with
//! unsafe code.

pub mod descendants;
pub mod launch;
pub mod output;
pub mod output_sink;
pub mod protocol;
pub mod runner;
pub mod signals;
pub mod spawn;
