//! Processes: the launcher, the runner, what they say to each other and to the daemon. The only room with
//! unsafe code.

pub mod instance;
pub mod launch;
pub mod launcher;
pub mod listen;
pub mod memfd;
pub mod packet;
pub mod privileges;
pub mod protocol;
pub mod title;
