//! As much of Python as a module of settings is made of, read without running anything: literals, names of
//! constants, calls, and simple arithmetic. What is beyond that is told apart and passed over.

pub mod expression;
pub mod module;
pub mod token;
pub mod value;
