//! Expressions of one logical line.

use super::token::{Kind, Token};

/// Deepest nesting that is read.
const DEEPEST: usize = 60;

/// An expression and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// What it is.
    pub node: Node,
    /// Where it begins, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Its first line, from 1.
    pub line: usize,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A string.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// `a.b.c`, also `True`, `False`, `None`.
    Name(String),
    /// A list, tuple or set.
    List(Vec<Expression>),
    /// A dict; an entry without a key is spread (`**x`).
    Dict(Vec<(Option<Expression>, Expression)>),
    /// `a.b(positional, name=…)`; an argument named `**` is spread.
    Call(String, Vec<Expression>, Vec<(String, Expression)>),
    /// `-x`
    Minus(Box<Expression>),
    /// `x + y` and so on.
    Binary(&'static str, Box<Expression>, Box<Expression>),
    /// Anything else.
    Unknown,
}

/// Reads expressions off tokens.
#[derive(Debug)]
pub struct Parser<'a> {
    tokens: &'a [Token],
    /// The next token.
    pub at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// At the first of these tokens.
    #[must_use]
    pub const fn new(tokens: &'a [Token], at: usize) -> Self {
        Self { tokens, at, depth: 0 }
    }

    fn peek(&self) -> Option<&'a Kind> {
        self.tokens.get(self.at).map(|t| &t.kind)
    }

    /// Whether the next token is this operator.
    #[must_use]
    pub fn is(&self, op: &str) -> bool {
        matches!(self.peek(), Some(Kind::Op(o)) if *o == op)
    }

    /// Takes an operator, if it is the next token.
    pub fn take(&mut self, op: &str) -> bool {
        let found = self.is(op);
        self.at += usize::from(found);
        found
    }

    /// A dotted name; none where there is none.
    pub fn dotted(&mut self) -> Option<String> {
        let Some(Kind::Name(first)) = self.peek() else { return None };
        let mut name = first.clone();
        self.at += 1;
        while self.is(".") {
            let Some(Kind::Name(next)) = self.tokens.get(self.at + 1).map(|t| &t.kind) else { break };
            name.push('.');
            name.push_str(next);
            self.at += 2;
        }
        Some(name)
    }

    fn place(&self, from: usize, node: Node) -> Expression {
        let first = self.tokens.get(from);
        let last = self.at.checked_sub(1).and_then(|i| self.tokens.get(i.max(from))).or(first);
        Expression {
            node,
            start: first.map_or(0, |t| t.start),
            end: last.map_or(0, |t| t.end),
            line: first.map_or(0, |t| t.line),
        }
    }

    /// One expression up to a comma, a closing bracket or the end; a colon ends it where `key` is set.
    pub fn element(&mut self, key: bool) -> Expression {
        let from = self.at;
        let found = if self.depth < DEEPEST {
            self.depth += 1;
            let found = self.binary(0);
            self.depth -= 1;
            found
        } else {
            None
        };
        if let Some(found) = found
            && self.ends(key)
        {
            return found;
        }
        // Something else follows, as `if … else …`: the whole element is unknown.
        self.at = from;
        self.skip(key);
        self.place(from, Node::Unknown)
    }

    fn ends(&self, key: bool) -> bool {
        match self.peek() {
            None => true,
            Some(Kind::Op(op)) => matches!(*op, "," | ")" | "]" | "}" | "=") || (key && *op == ":"),
            Some(_) => false,
        }
    }

    /// To the end of the element, over brackets.
    fn skip(&mut self, key: bool) {
        let mut depth = 0_usize;
        while let Some(kind) = self.peek() {
            if let Kind::Op(op) = kind {
                match *op {
                    "(" | "[" | "{" => depth += 1,
                    ")" | "]" | "}" if depth == 0 => return,
                    ")" | "]" | "}" => depth -= 1,
                    "," if depth == 0 => return,
                    ":" if depth == 0 && key => return,
                    _ => {}
                }
            }
            self.at += 1;
        }
    }

    fn binary(&mut self, level: usize) -> Option<Expression> {
        const LEVELS: [&[&str]; 3] = [&["|"], &["+", "-"], &["*", "/", "//", "%"]];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let from = self.at;
        let mut left = self.binary(level + 1)?;
        let mut length = 0;
        while let Some(Kind::Op(op)) = self.peek()
            && operators.contains(op)
        {
            length += 1;
            if length > DEEPEST {
                return None;
            }
            self.at += 1;
            let right = self.binary(level + 1)?;
            left = self.place(from, Node::Binary(op, Box::new(left), Box::new(right)));
        }
        Some(left)
    }

    fn unary(&mut self) -> Option<Expression> {
        let from = self.at;
        let mut minus = false;
        let mut signs = 0;
        while let Some(Kind::Op(sign @ ("-" | "+"))) = self.peek() {
            minus ^= *sign == "-";
            self.at += 1;
            signs += 1;
        }
        let inner = self.atom()?;
        if signs > 0 && minus { Some(self.place(from, Node::Minus(Box::new(inner)))) } else { Some(inner) }
    }

    fn atom(&mut self) -> Option<Expression> {
        let from = self.at;
        let found = match self.peek()? {
            Kind::Text(_) => self.texts(),
            Kind::Int(n) => {
                self.at += 1;
                Node::Int(*n)
            }
            Kind::Float(f) => {
                self.at += 1;
                Node::Float(*f)
            }
            Kind::Unknown => {
                self.at += 1;
                // A string beside it belongs to it.
                while matches!(self.peek(), Some(Kind::Text(_) | Kind::Unknown)) {
                    self.at += 1;
                }
                Node::Unknown
            }
            Kind::Name(name) if matches!(name.as_str(), "lambda" | "not" | "await" | "yield") => return None,
            Kind::Name(_) => {
                let name = self.dotted()?;
                if self.take("(") {
                    let (positional, named) = self.arguments();
                    Node::Call(name, positional, named)
                } else {
                    Node::Name(name)
                }
            }
            Kind::Op("(") => {
                self.at += 1;
                let (items, comma) = self.items(")");
                match <[Expression; 1]>::try_from(items) {
                    Ok([one]) if !comma => one.node,
                    Ok(one) => Node::List(one.to_vec()),
                    Err(items) => Node::List(items),
                }
            }
            Kind::Op("[") => {
                self.at += 1;
                Node::List(self.items("]").0)
            }
            Kind::Op("{") => {
                self.at += 1;
                self.braces()
            }
            Kind::Op(_) => return None,
        };
        let found = self.place(from, found);
        // `x[0]`, `f().y`, `f()()`: a value that is not known here.
        if matches!(self.peek(), Some(Kind::Op("[" | "." | "("))) {
            return None;
        }
        Some(found)
    }

    /// Strings beside each other are one.
    fn texts(&mut self) -> Node {
        let mut out = String::new();
        let mut known = true;
        loop {
            match self.peek() {
                Some(Kind::Text(text)) => out.push_str(text),
                Some(Kind::Unknown) => known = false,
                _ => break,
            }
            self.at += 1;
        }
        if known { Node::Text(out) } else { Node::Unknown }
    }

    /// Elements up to the closing bracket, and whether a comma follows one.
    fn items(&mut self, close: &str) -> (Vec<Expression>, bool) {
        let mut out = Vec::new();
        let mut comma = false;
        while self.peek().is_some() && !self.take(close) {
            let before = self.at;
            out.push(self.element(false));
            comma |= self.take(",");
            self.progress(before);
        }
        (out, comma)
    }

    /// Never stands still, whatever the tokens are.
    fn progress(&mut self, before: usize) {
        if self.at == before {
            self.at += 1;
        }
    }

    fn braces(&mut self) -> Node {
        let mut entries = Vec::new();
        let mut set = Vec::new();
        while self.peek().is_some() && !self.take("}") {
            let before = self.at;
            if self.take("**") {
                let value = self.element(false);
                entries.push((None, value));
            } else {
                let key = self.element(true);
                if self.take(":") {
                    let value = self.element(false);
                    entries.push((Some(key), value));
                } else {
                    set.push(key);
                }
            }
            self.take(",");
            self.progress(before);
        }
        match (entries.is_empty(), set.is_empty()) {
            (_, true) => Node::Dict(entries),
            (true, false) => Node::List(set),
            (false, false) => Node::Unknown,
        }
    }

    /// Arguments up to the closing parenthesis.
    pub fn arguments(&mut self) -> (Vec<Expression>, Vec<(String, Expression)>) {
        let (mut positional, mut named) = (Vec::new(), Vec::new());
        while self.peek().is_some() && !self.take(")") {
            let before = self.at;
            let name = match (self.peek(), self.tokens.get(self.at + 1).map(|t| &t.kind)) {
                (Some(Kind::Name(name)), Some(Kind::Op("="))) => {
                    self.at += 2;
                    Some(name.clone())
                }
                (Some(Kind::Op("**")), _) => {
                    self.at += 1;
                    Some("**".to_owned())
                }
                _ => None,
            };
            let value = self.element(false);
            match name {
                Some(name) => named.push((name, value)),
                None => positional.push(value),
            }
            self.take(",");
            self.progress(before);
        }
        (positional, named)
    }
}

#[cfg(test)]
mod tests {
    use super::super::token::tokens;
    use super::*;

    fn node(text: &str) -> Node {
        let found = tokens(text);
        Parser::new(&found.lines[0].1, 0).element(false).node
    }

    #[test]
    fn expressions() {
        assert_eq!(node("'a' 'b'"), Node::Text("ab".into()));
        assert!(matches!(node("60 * 60 + 1"), Node::Binary("+", ..)));
        assert!(matches!(node("(1,)"), Node::List(l) if l.len() == 1));
        assert!(matches!(node("(1)"), Node::Int(1)));
        assert!(matches!(node("()"), Node::List(l) if l.is_empty()));
        assert!(matches!(node("{'a': 1, **b}"), Node::Dict(d) if d.len() == 2));
        assert!(
            matches!(node("a.b(1, c=2, **d)"), Node::Call(n, p, k) if n == "a.b" && p.len() == 1 && k.len() == 2)
        );
        for odd in [
            "1 if x else 2",
            "a[0]",
            "f()()",
            "lambda: 1",
            "[x for x in y]",
            "a and b",
            "not x",
            "f'{x}'",
            "*a",
        ] {
            let found = node(odd);
            assert!(
                matches!(found, Node::Unknown)
                    || matches!(&found, Node::List(l) if l.iter().all(|e| e.node == Node::Unknown)),
                "{odd}: {found:?}"
            );
        }
    }

    #[test]
    fn what_is_unknown_does_not_hide_its_neighbors() {
        let Node::Dict(entries) =
            node("{'a': x[1], 'b': [i for i in range(3)], 'c': lambda x, y: 1, 'd': 4}")
        else {
            panic!()
        };
        assert_eq!(entries.last().unwrap().1.node, Node::Int(4));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let _ = node(&deep);
        let _ = node(&"(".repeat(100_000));
        let _ = node(&"-".repeat(100_000));
        let _ = node(&format!("1{}", "+1".repeat(100_000)));
    }
}
