//! How things end that the store itself ends, as the JSON texts that the scripts store, and what they refuse.

use crate::broker::rules;
use crate::model::name::MessageId;
use crate::model::outcome::Outcome;
use crate::model::state::State;
use crate::model::workflow;

/// Stands for an id, and for a further one.
const ID: &str = "taskd-id-mark";
const OTHER: &str = "taskd-other-mark";

/// Stands for the number of a step.
const NO: u32 = 4_000_000_007;

/// The state that stands in the texts for each.
const STATE: State = State::Failure;

/// The table of the scripts. What is a text is that outcome; what takes something is a function.
pub(super) fn lua() -> String {
    let id = || MessageId(ID.to_owned());
    let fixed = |name: &str, outcome: &Outcome| format!("  {name} = {},\n", quoted(&json(outcome)));
    // What is put into JSON is the inside of a text of JSON.
    let of_id = |name: &str, outcome: &Outcome| {
        let marks = [(ID, "string.sub(cjson.encode(id), 2, -2)".to_owned())];
        format!("  {name} = function(id) return {} end,\n", filled(&json(outcome), &marks))
    };
    let no = NO.to_string();
    let upstream = filled(
        &json(&workflow::upstream(&id(), NO, STATE)),
        &[
            (ID, "string.sub(cjson.encode(id), 2, -2)".to_owned()),
            (&no, "no".to_owned()),
            (STATE.name(), "state".to_owned()),
        ],
    );
    let never_ran = filled(
        &rules::never_ran(&id(), NO, &MessageId(OTHER.to_owned())),
        &[(ID, "id".to_owned()), (&no, "no".to_owned()), (OTHER, "workflow".to_owned())],
    );
    let mut all = String::from("local OUTCOME = {\n");
    all.push_str(&fixed("revoked", &rules::revoked()));
    all.push_str(&fixed("expired", &rules::expired()));
    all.push_str(&fixed("superseded", &rules::superseded()));
    all.push_str(&fixed("too_large", &workflow::too_large()));
    all.push_str(&fixed("no_definition", &rules::no_definition()));
    all.push_str(&of_id("replaced", &rules::replaced(&id())));
    all.push_str(&of_id("key_held", &rules::key_held(&id())));
    all.push_str(&of_id("id_taken", &rules::id_taken(&id())));
    all.push_str(&format!("  upstream = function(id, no, state) return {upstream} end,\n"));
    all.push_str(&format!("  never_ran = function(id, no, workflow) return {never_ran} end,\n"));
    all.push('}');
    all
}

fn json(outcome: &Outcome) -> String {
    // An outcome is made of what JSON has.
    serde_json::to_string(outcome).unwrap_or_default()
}

/// An expression of Lua: the text, with these expressions in the place of these marks.
fn filled(text: &str, marks: &[(&str, String)]) -> String {
    let mut all = String::new();
    let mut rest = text;
    loop {
        let found = marks.iter().filter_map(|(mark, with)| Some((rest.find(mark)?, mark, with))).min();
        let Some((at, mark, with)) = found else { break };
        let (before, behind) = rest.split_at(at);
        all.push_str(&quoted(before));
        all.push_str(" .. ");
        all.push_str(with);
        all.push_str(" .. ");
        rest = behind.get(mark.len()..).unwrap_or_default();
    }
    all.push_str(&quoted(rest));
    all
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_expressions_in_the_place_of_its_marks() {
        let marks = [("<a>", "a".to_owned()), ("<b>", "b".to_owned())];
        assert_eq!(
            filled("it's <b> and <a>, <b>", &marks),
            r"'it\'s ' .. b .. ' and ' .. a .. ', ' .. b .. ''"
        );
        assert_eq!(filled("100 % \\", &marks), r"'100 % \\'");
    }

    #[test]
    fn no_mark_is_left_in_what_the_scripts_get() {
        let all = lua();
        for mark in [ID, OTHER, &NO.to_string(), STATE.name()] {
            assert!(!all.contains(mark), "{mark} in {all}");
        }
        // The cause and the sentence both name the step.
        let upstream = all.lines().find(|line| line.contains("upstream = ")).unwrap();
        assert_eq!(upstream.matches(" .. no .. ").count(), 2, "{upstream}");
        assert_eq!(upstream.matches("cjson.encode(id)").count(), 2, "{upstream}");
        assert_eq!(upstream.matches(" .. state .. ").count(), 1, "{upstream}");
    }
}
