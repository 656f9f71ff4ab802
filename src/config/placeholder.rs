//! `{name}` inside an element of `exec`.

use super::params;

/// The names of the placeholders of one element, in order: `{{` and `}}` are literal braces, and so is any
/// brace that does not enclose a parameter's name.
pub(super) fn names(element: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = element;
    while let Some(open) = rest.find('{') {
        let Some(after) = rest.get(open + 1..) else { break };
        if let Some(literal) = after.strip_prefix('{') {
            rest = literal;
            continue;
        }
        match after.split_once('}') {
            Some((name, tail)) if params::is_name(name) => {
                found.push(name);
                rest = tail;
            }
            _ => rest = after,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_between_single_braces_are_placeholders() {
        for (element, expected) in [
            ("{a}", vec!["a"]),
            ("x{a}y{b_1}", vec!["a", "b_1"]),
            ("{{a}}", vec![]),
            ("{{{a}}}", vec!["a"]),
            ("{A} {1} {} { a } {a", vec![]),
            ("{a{b}", vec!["b"]),
            ("awk '{print $1}'", vec![]),
            ("{é}{ü", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(names(element), expected, "{element}");
        }
    }
}
