//! The arguments of an operation, as texts in a row: the script reads them one after the other.

/// Builds them.
#[derive(Debug, Default)]
pub(super) struct Args {
    list: Vec<Vec<u8>>,
    bytes: usize,
}

impl Args {
    /// A text.
    pub(super) fn text(&mut self, text: impl Into<Vec<u8>>) -> &mut Self {
        let text = text.into();
        self.bytes += text.len();
        self.list.push(text);
        self
    }

    /// A number.
    pub(super) fn num(&mut self, n: impl std::fmt::Display) -> &mut Self {
        self.text(n.to_string())
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, on: bool) -> &mut Self {
        self.text(if on { "1" } else { "0" })
    }

    /// A number that may be absent.
    pub(super) fn opt_num(&mut self, n: Option<impl std::fmt::Display>) -> &mut Self {
        match n {
            Some(n) => self.num(n),
            None => self.text(""),
        }
    }

    /// A text that may be absent; one that is there is not empty.
    pub(super) fn opt(&mut self, text: Option<&str>) -> &mut Self {
        self.text(text.unwrap_or_default())
    }

    /// A list: how many, and each.
    pub(super) fn list<T: Into<Vec<u8>>>(&mut self, list: impl ExactSizeIterator<Item = T>) -> &mut Self {
        self.num(list.len());
        for text in list {
            self.text(text);
        }
        self
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an operation: its name, how many arguments, and these.
    pub(super) fn op(&mut self, name: &str, args: Self) -> &mut Self {
        self.text(name).num(args.len()).join(args)
    }

    /// Adds all of another one.
    pub(super) fn join(&mut self, other: Self) -> &mut Self {
        self.bytes += other.bytes;
        self.list.extend(other.list);
        self
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.list.iter().map(Vec::as_slice)
    }
}
