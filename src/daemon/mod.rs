//! The daemon: start order and the one select loop.
