//! How things end that the store itself ends, as the JSON texts that the scripts store.

use crate::broker::rules;
use crate::model::name::MessageId;
use crate::model::outcome::Outcome;

/// Stands for an id; the scripts put the JSON of it there.
const MARK: &str = "taskd-id-mark";

/// The table of the scripts.
pub(super) fn lua() -> String {
    let fixed = |name: &str, outcome: &Outcome| format!("  {name} = {},\n", quoted(&json(outcome)));
    let marked = |name: &str, outcome: &Outcome| {
        let json = json(outcome);
        let (before, after) = json.split_once(MARK).unwrap_or((json.as_str(), ""));
        format!(
            "  {name} = function(id) return {} .. string.sub(cjson.encode(id), 2, -2) .. {} end,\n",
            quoted(before),
            quoted(after)
        )
    };
    let mark = MessageId(MARK.to_owned());
    let mut all = String::from("local OUTCOME = {\n");
    all.push_str(&fixed("revoked", &rules::revoked()));
    all.push_str(&fixed("expired", &rules::expired()));
    all.push_str(&fixed("superseded", &rules::superseded()));
    all.push_str(&marked("replaced", &rules::replaced(&mark)));
    all.push_str(&marked("key_held", &rules::key_held(&mark)));
    all.push('}');
    all
}

fn json(outcome: &Outcome) -> String {
    // An outcome is made of what JSON has.
    serde_json::to_string(outcome).unwrap_or_default()
}

/// A text of Lua.
fn quoted(text: &str) -> String {
    let mut all = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => all.push_str("\\'"),
            '\\' => all.push_str("\\\\"),
            '\n' => all.push_str("\\n"),
            c => all.push(c),
        }
    }
    all.push('\'');
    all
}
