//! Which nodes a request is for, where it names them by pattern.

/// Whether a shell pattern matches the whole name, as Python's `fnmatch` has it: `*`, `?`, `[a-z]`, `[!a]`.
pub(super) fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on when a later character does not fit: behind the latest `*`, one character further.
    let mut back: Option<(usize, usize)> = None;
    loop {
        let fits = match (pattern.get(p), name.get(n)) {
            (None, None) => return true,
            (Some('*'), _) => {
                p += 1;
                back = Some((p, n));
                continue;
            }
            (Some('?'), Some(_)) => Some(p + 1),
            (Some('['), Some(c)) => class(&pattern, p, *c),
            (Some(a), Some(b)) if a == b => Some(p + 1),
            _ => None,
        };
        match (fits, back) {
            (Some(next), _) => (p, n) = (next, n + 1),
            (None, Some((star, from))) if from < name.len() => {
                (p, n) = (star, from + 1);
                back = Some((star, from + 1));
            }
            _ => return false,
        }
    }
}

/// Where the pattern goes on, if the class at `at` has the character. A bracket that does not close is itself.
fn class(pattern: &[char], at: usize, c: char) -> Option<usize> {
    let negated = pattern.get(at + 1) == Some(&'!');
    let from = at + 1 + usize::from(negated);
    // A closing bracket that stands first is a member.
    let Some(close) = (from + 1..pattern.len()).find(|i| pattern.get(*i) == Some(&']')) else {
        return (c == '[').then_some(at + 1);
    };
    let members = pattern.get(from..close).unwrap_or_default();
    let mut found = false;
    let mut i = 0;
    while let Some(low) = members.get(i) {
        match (members.get(i + 1), members.get(i + 2)) {
            (Some('-'), Some(high)) => {
                found |= (*low..=*high).contains(&c);
                i += 3;
            }
            _ => {
                found |= *low == c;
                i += 1;
            }
        }
    }
    (found != negated).then_some(close + 1)
}

/// Whether a regular expression matches the beginning of the name, as Python's `re.match` has it. One that this
/// engine (without look-around and back-references, and never slow) does not know matches nothing.
pub(super) fn expression(pattern: &str, name: &str) -> bool {
    let anchored = format!("^(?:{pattern})");
    regex_lite::RegexBuilder::new(&anchored)
        .size_limit(1 << 16)
        .build()
        .is_ok_and(|expression| expression.is_match(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_python() {
        for (pattern, name, fits) in [
            ("w*@lab", "w1@lab", true),
            ("w?@lab", "w12@lab", false),
            ("*", "", true),
            ("w[0-3]@*", "w2@lab", true),
            ("w[!0-3]@*", "w2@lab", false),
            ("w[]]", "w]", true),
            ("w[", "w[", true),
            ("*1*b", "w1@lab", true),
            ("*x", "w1@lab", false),
            ("[a-", "[a-", true),
        ] {
            assert_eq!(glob(pattern, name), fits, "{pattern} {name}");
        }
        for (pattern, name, fits) in [
            ("^w1", "w1@lab", true),
            ("w1", "w1@lab", true),
            ("lab", "w1@lab", false),
            ("a|w", "w1@lab", true),
            (r"w\d+@(lab|x)$", "w17@x", true),
            ("(", "w1", false),
            ("(?=w)w", "w", false),
            ("w{1000}{1000}{1000}", "w", false),
        ] {
            assert_eq!(expression(pattern, name), fits, "{pattern} {name}");
        }
    }
}
