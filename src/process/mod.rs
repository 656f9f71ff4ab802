//! Processes: the launcher, the runner, what they say to each other and to the daemon. The only room with
//! unsafe code.

pub mod cgroup;
pub mod confinement;
pub mod descendants;
pub mod held;
pub mod instance;
pub mod launch;
pub mod launcher;
pub mod listen;
pub mod memfd;
pub mod memory;
pub mod output;
pub mod output_sink;
pub mod packet;
pub mod peer;
pub mod private_files;
pub mod privileges;
pub mod protocol;
pub mod runner;
pub mod sandbox;
pub mod sandbox_step;
pub mod signals;
pub mod spawn;
pub mod spawn_error;
pub mod spawn_report;
pub mod title;
