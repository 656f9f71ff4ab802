//! Placeholders in an element of `exec`: `{name}` is replaced inside its element, `{{` and `}}` are literal
//! braces, any other brace stands for itself.

/// A piece of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Literal text.
    Text(String),
    /// The value of the parameter of this name.
    Param(String),
}

/// Cuts an element into its pieces. Never fails: what is not a placeholder is text.
#[must_use]
pub fn parse(element: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = element;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        rest = match c {
            '{' if after.starts_with('{') => {
                text.push('{');
                after.get(1..).unwrap_or_default()
            }
            '}' if after.starts_with('}') => {
                text.push('}');
                after.get(1..).unwrap_or_default()
            }
            '{' => match placeholder(after) {
                Some((name, behind)) => {
                    if !text.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut text)));
                    }
                    pieces.push(Piece::Param(name.to_owned()));
                    behind
                }
                None => {
                    text.push('{');
                    after
                }
            },
            other => {
                text.push(other);
                after
            }
        };
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

/// The name and what follows its `}`, where `after` (what follows a `{`) begins with `[a-z][a-z0-9_]*}`.
fn placeholder(after: &str) -> Option<(&str, &str)> {
    let (name, behind) = after.split_once('}')?;
    let mut chars = name.chars();
    let starts = chars.next().is_some_and(|c| c.is_ascii_lowercase());
    let goes_on = chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (starts && goes_on).then_some((name, behind))
}

/// Whether any element of an argv has a placeholder.
#[must_use]
pub fn any_placeholder(argv: &[String]) -> bool {
    argv.iter().any(|e| parse(e).iter().any(|p| matches!(p, Piece::Param(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(element: &str) -> String {
        parse(element)
            .into_iter()
            .map(|p| match p {
                Piece::Text(t) => format!("[{t}]"),
                Piece::Param(n) => format!("<{n}>"),
            })
            .collect()
    }

    #[test]
    fn only_lower_case_names_are_placeholders() {
        for (element, pieces) in [
            ("", ""),
            ("plain", "[plain]"),
            ("{a}", "<a>"),
            ("--x={a_1}.{b}z", "[--x=]<a_1>[.]<b>[z]"),
            ("{{a}}", "[{a}]"),
            ("{{{a}}}", "[{]<a>[}]"),
            ("{A}{1a}{}{ a}{a", "[{A}{1a}{}{ a}{a]"),
            ("{\"k\":{v}}", "[{\"k\":]<v>[}]"),
            ("é{a}é", "[é]<a>[é]"),
            ("}{", "[}{]"),
            ("awk '{print $1}'", "[awk '{print $1}']"),
        ] {
            assert_eq!(shown(element), pieces, "{element}");
        }
    }
}
