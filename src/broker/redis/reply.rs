//! Reading what the scripts answer.

use redis::Value;

/// An answer that is not what the scripts answer: somebody else wrote under these keys, or it is a fault of taskd's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Odd(pub(super) String);

impl Odd {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// A list that is read from its front.
#[derive(Debug)]
pub(super) struct Reader(std::vec::IntoIter<Value>);

impl Reader {
    /// Of a list.
    pub(super) fn of(value: Value) -> Result<Self, Odd> {
        match value {
            Value::Array(list) => Ok(Self(list.into_iter())),
            other => Err(Odd::new(format!("{} in the place of a list", word(&other)))),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_slice().len()
    }

    pub(super) fn value(&mut self) -> Result<Value, Odd> {
        self.0.next().ok_or_else(|| Odd::new("a list that ends too early"))
    }

    pub(super) fn list(&mut self) -> Result<Self, Odd> {
        Self::of(self.value()?)
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Odd> {
        match self.value()? {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            Value::Int(n) => Ok(n.to_string().into_bytes()),
            other => Err(Odd::new(format!("{} in the place of a text", word(&other)))),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, Odd> {
        String::from_utf8(self.bytes()?).map_err(|_| Odd::new("bytes that are no text"))
    }

    pub(super) fn num<T: std::str::FromStr>(&mut self) -> Result<T, Odd> {
        let text = self.text()?;
        text.parse().map_err(|_| Odd::new(format!("{text:?} in the place of a number")))
    }

    /// Absent where the text is empty.
    pub(super) fn opt_num<T: std::str::FromStr>(&mut self) -> Result<Option<T>, Odd> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| Odd::new(format!("{text:?} in the place of a number")))
    }

    /// All that is left, as texts.
    pub(super) fn texts(mut self) -> Result<Vec<String>, Odd> {
        let mut all = Vec::with_capacity(self.len());
        while !self.is_empty() {
            all.push(self.text()?);
        }
        Ok(all)
    }

    /// All that is left.
    pub(super) fn each(self) -> impl Iterator<Item = Value> {
        self.0
    }
}

const fn word(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) => "a text",
        Value::Array(_) => "a list",
        _ => "something else",
    }
}
