//! Declared parameters and the one place where arguments are bound to them: used at enqueue (to refuse),
//! by the runner (to build argv and environment) and by `taskd exec`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    /// A string without NUL.
    String,
    /// A whole number (i64), also given as a string by the CLI.
    Int,
    /// A finite number.
    Float,
    /// `true` or `false`.
    Bool,
}

/// A declared parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Param {
    /// Its name, `[a-z][a-z0-9_]*`.
    pub name: String,
    /// Its type.
    pub kind: ParamType,
    /// Used when it is not given; without one it must be given.
    pub default: Option<Value>,
    /// The only values allowed; empty: any.
    pub one_of: Vec<Value>,
    /// Least value (numbers).
    pub min: Option<f64>,
    /// Greatest value (numbers).
    pub max: Option<f64>,
    /// Most characters (strings).
    pub max_length: Option<u64>,
}

// f64 bounds come from TOML, where NaN is refused by `taskd check`: equality is total.
impl Eq for Param {}
