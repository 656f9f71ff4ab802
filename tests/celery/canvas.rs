//! What follows an end, against what Celery's workers sent.

use serde_json::Value;
use taskd::celery::call::{Call, Sending};
use taskd::celery::canvas::builtin::Builtin;
use taskd::celery::canvas::{check, failed, joined, member, not_joined, succeeded};
use taskd::celery::envelope::Address;
use taskd::celery::json::{Json, Raw};
use taskd::celery::signature::Signature;
use taskd::model::time::Wall;

use crate::fixtures::{all, dense, envelope, one, parts};

const NOW: Wall = Wall(1_795_352_297_000);

fn raw(text: &str) -> Raw {
    Raw::parse(text).unwrap()
}

fn signature(text: &str) -> Signature {
    Signature::read(Json::parse(text).unwrap()).unwrap()
}

/// Headers and body as sent, without what depends on who sends; with `ids` of the expected one in their place.
fn sent(call: &Call) -> (Value, Value) {
    let mut call = call.clone();
    if call.address.routing_key.is_empty() {
        call.address = Address::queue("celery");
    }
    let envelope = call.write(Sending { tag: "t", origin: "", expiration_ms: None });
    let (mut headers, _, body) = parts(&envelope);
    headers.as_object_mut().unwrap().remove("origin");
    (headers, dense(body))
}

fn captured(call: &Call) -> (Value, Value) {
    let mut call = call.clone();
    // taskd makes its own, which a test of messages compares.
    (call.args_repr, call.kwargs_repr) = (None, None);
    sent(&call)
}

#[test]
fn a_chain_with_a_group_runs_as_celery_runs_it() {
    let calls = one("worker_chain_to_chord").calls();
    let [head, first, second, body] = calls.as_slice() else { panic!("{}", calls.len()) };
    check(head).unwrap();
    let follow = succeeded(head, &raw("2"), NOW).unwrap();
    assert_eq!(follow.chords, [("9b697b5c-0918-4180-8cee-591945c19e4b".to_owned(), 2)]);
    assert_eq!(follow.calls.len(), 2);
    assert_eq!(sent(&follow.calls[0]), captured(first));
    assert_eq!(sent(&follow.calls[1]), captured(second));
    // The body's tuple has the header's group as its parent.
    let group = r#"[["9b697b5c-0918-4180-8cee-591945c19e4b", null], [[["39bf57b7-6111-4e74-98fc-3660e92852ca", null], null], [["122d1b79-58a2-4774-9af5-a858a948258b", null], null]]]"#;
    assert_eq!(
        follow.children[0].text(),
        format!("[[\"794fe9c8-147b-4989-b3d3-1a4852a97229\", {group}], null]")
    );
    let end = member(second).unwrap();
    assert_eq!((end.index, end.size()), (Some(1), None));
    let join = joined(&end, &[raw("7"), raw("8")], second, NOW).unwrap();
    assert_eq!(join.calls.len(), 1);
    assert_eq!(sent(&join.calls[0]), captured(body));
    // Doing it again sends the same.
    assert_eq!(succeeded(head, &raw("2"), NOW).unwrap(), follow);
}

#[test]
fn links_and_errbacks_are_sent_as_celery_sends_them() {
    let sent_one = |calls: &[Call], want: &Call| {
        let [mut call] = <[Call; 1]>::try_from(calls.to_vec()).unwrap();
        // Nobody chose the id.
        assert_eq!(call.id.len(), 36);
        call.id.clone_from(&want.id);
        if call.group.is_some() {
            call.group.clone_from(&want.group);
        }
        assert_eq!(sent(&call), captured(want));
    };
    let want = one("worker_link_callback").calls().remove(0);
    let mut parent = Call::new("lab.add", want.parent_id.as_deref().unwrap());
    parent.callbacks =
        Some(vec![signature(r#"{"task": "lab.add", "args": [10], "kwargs": {}, "options": {}}"#)]);
    let follow = succeeded(&parent, &raw("3"), NOW).unwrap();
    sent_one(&follow.calls, &want);
    assert_eq!(follow.children.len(), 1);

    let want = one("worker_errback_call").calls().remove(0);
    let mut parent = Call::new("lab.boom", want.parent_id.as_deref().unwrap());
    parent.errbacks = Some(vec![signature(r#"{"task": "lab.onerr"}"#)]);
    let failure = failed(&parent, NOW).unwrap();
    sent_one(&failure.errbacks.calls, &want);
    assert!(failure.errbacks.calls[0].group.is_some() && failure.also.is_empty());
}

#[test]
fn a_chain_goes_on_with_the_last_of_its_list() {
    let head = one("task_chain").calls().remove(0);
    let second = &succeeded(&head, &raw("4"), NOW).unwrap().calls[0];
    assert_eq!((second.args.text(), second.chain.as_ref().unwrap().len()), ("[4, 4]", 1));
    let third = &succeeded(second, &raw("8"), NOW).unwrap().calls[0];
    assert_eq!((third.args.text(), third.chain.as_ref().unwrap().len()), ("[8, 8]", 0));
    assert_eq!((third.root(), third.parent_id.as_deref()), (head.id.as_str(), Some(second.id.as_str())));
    assert!(succeeded(third, &raw("16"), NOW).unwrap().calls.is_empty());
    // A failure of the head ends those behind it too.
    let ids: Vec<String> = failed(&head, NOW).unwrap().also.into_iter().map(|planned| planned.id).collect();
    assert_eq!(ids, [third.id.clone(), second.id.clone()]);
    // Protocol 1 has the same as links in links.
    let head = one("v1_chain").calls().remove(0);
    let second = &succeeded(&head, &raw("4"), NOW).unwrap().calls[0];
    let third = &succeeded(second, &raw("8"), NOW).unwrap().calls[0];
    assert_eq!((second.args.text(), third.args.text()), ("[4, 2]", "[8, 3]"));
}

#[test]
fn the_end_of_a_chain_counts_in_its_chord() {
    let calls = one("task_chord_of_chains").calls();
    let head = &calls[0];
    assert!(member(head).is_none());
    let tail = &succeeded(head, &raw("2"), NOW).unwrap().calls[0];
    let counted = member(tail).unwrap();
    assert_eq!((counted.group.as_str(), counted.index), (calls[1].group.as_deref().unwrap(), Some(0)));
    // It fails where the head does.
    let failure = failed(head, NOW).unwrap();
    assert_eq!(failure.members.len(), 1);
    assert_eq!(
        (failure.members[0].id.as_str(), &failure.members[0].group),
        (tail.id.as_str(), &counted.group)
    );
    // A chain that ends in a group counts that group's tasks.
    let head = one("task_chord_with_inner_chain_group").calls().remove(0);
    let follow = succeeded(&head, &raw("2"), NOW).unwrap();
    let groups: Vec<_> = follow.calls.iter().map(|call| member(call).unwrap().group).collect();
    assert_eq!(groups, ["c0cbc25e-d0a5-46ba-b330-53ca33d4f1d2", "c0cbc25e-d0a5-46ba-b330-53ca33d4f1d2"]);
    assert!(follow.chords.is_empty(), "its size is stored by whoever sent the chord");
}

#[test]
fn containers_in_links_are_opened() {
    let follow = |name: &str| {
        let call = one(name).calls().remove(0);
        check(&call).unwrap();
        (succeeded(&call, &raw("2"), NOW).unwrap(), call)
    };
    let (chain, _) = follow("task_link_chain");
    let [first] = chain.calls.as_slice() else { panic!() };
    assert_eq!(first.args.text(), "[2, 2]");
    let rest = first.chain.as_ref().unwrap();
    assert_eq!((rest.len(), rest[0].args.text()), (1, "[3]"));
    let last = rest[0].id().unwrap();
    assert_eq!(chain.children[0].text(), format!("[[\"{last}\", [\"{}\", null]], null]", first.id));

    let (group, _) = follow("task_group_in_chain_delay");
    let args: Vec<_> = group.calls.iter().map(|call| call.args.text().to_owned()).collect();
    assert_eq!(args, ["[2, 1]", "[2, 2]"]);
    assert_eq!(group.calls[0].group, group.calls[1].group);
    assert_eq!(group.calls[1].group_index, Some(1));
    assert!(group.chords.is_empty() && group.children.len() == 1);

    let (chord, call) = follow("task_link_chord");
    let args: Vec<_> = chord.calls.iter().map(|call| call.args.text().to_owned()).collect();
    assert_eq!(args, ["[2, 2]", "[2, 3]"]);
    let header = chord.calls[0].group.clone().unwrap();
    assert_eq!(chord.chords, [(header.clone(), 2)]);
    let counted = member(&chord.calls[1]).unwrap();
    let body = &joined(&counted, &[raw("4"), raw("5")], &chord.calls[1], NOW).unwrap().calls[0];
    assert_eq!((body.task.as_str(), body.args.text()), ("lab.xsum", "[[4, 5]]"));
    assert_eq!((body.group.as_ref(), body.root()), (Some(&header), call.id.as_str()));

    // A group that was chosen stays, the place is that of this time.
    let mut chosen = Call::new("a", "i");
    let own = r#"{"task": "b", "options": {"group_id": "own", "group_index": 7}}"#;
    chosen.callbacks = Some(vec![signature(own), signature(r#"{"task": "c"}"#)]);
    let calls = succeeded(&chosen, &raw("1"), NOW).unwrap().calls;
    assert_eq!((calls[0].group.as_deref(), calls[0].group_index), (Some("own"), Some(0)));
    assert_ne!(calls[0].group, calls[1].group);

    let (several, _) = follow("task_link_list");
    assert_eq!(several.calls.len(), 2);
    assert!(several.calls.iter().all(|call| call.group.is_some()));
}

#[test]
fn a_failed_chord_fails_its_body_and_calls_its_errbacks() {
    let call = one("task_chord_link_error").calls().remove(0);
    let counted = member(&call).unwrap();
    let failure = not_joined(&counted, &call, NOW).unwrap();
    let body = counted.body.id().unwrap();
    assert_eq!(failure.also[0].id, body);
    let [errback] = failure.errbacks.calls.as_slice() else { panic!() };
    assert_eq!((errback.task.as_str(), errback.args.text()), ("lab.onerr", format!("[\"{body}\"]").as_str()));
    // Celery up to 4 and protocol 1 say the size in the body.
    assert_eq!(member(&one("task_chord_celery44").calls()[1]).unwrap().size(), Some(2));
    assert_eq!(member(&one("v1_celery31_chord").calls()[0]).unwrap().index, None);
}

#[test]
fn options_say_how_a_call_is_sent() {
    let mut call = Call::new("a", "i");
    call.callbacks = Some(vec![signature(
        r#"{"task": "b", "args": [1], "immutable": true, "options": {"queue": "q", "priority": 7, "countdown": 1.5,
            "expires": 60, "time_limit": 9, "soft_time_limit": 8, "task_id": "j", "shadow": "s", "headers": {"h": 1},
            "stamped_headers": ["tag"], "tag": ["x"], "ignore_result": true, "reply_to": "r", "retries": 2}}"#,
    )]);
    let b = &succeeded(&call, &raw("5"), NOW).unwrap().calls[0];
    assert_eq!((b.id.as_str(), b.args.text(), b.address.routing_key.as_str()), ("j", "[1]", "q"));
    assert_eq!((b.priority, b.retries, b.ignore_result), (7, 2, Some(true)));
    assert_eq!(b.eta.as_ref().unwrap().at, NOW.plus(1500));
    assert_eq!(b.expires.as_ref().unwrap().at, NOW.plus(60_000));
    assert_eq!((b.time_limit_ms, b.soft_time_limit_ms), (Some(9000), Some(8000)));
    assert_eq!((b.stamps.to_raw().text(), b.headers.to_raw().text()), (r#"{"tag": ["x"]}"#, r#"{"h": 1}"#));
}

#[test]
fn nested_chords_and_groups_are_counted_right() {
    let chord = |header: &str, body: &str| {
        format!(
            r#"{{"task": "celery.chord", "subtask_type": "chord", "args": [], "kwargs": {{"kwargs": {{}}, "header": [{header}], "body": {body}}}, "options": {{}}}}"#
        )
    };
    let inner = chord(r#"{"task": "a"}, {"task": "b"}"#, r#"{"task": "c"}"#);
    let group = r#"{"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [{"task": "d"}, {"task": "e"}]}}"#;
    let outer = chord(&format!("{inner}, {group}"), r#"{"task": "z"}"#);
    let mut call = Call::new("first", "i");
    call.callbacks = Some(vec![signature(&outer)]);
    let follow = succeeded(&call, &raw("1"), NOW).unwrap();
    // a and b join to c, which counts with d and e.
    let sizes: Vec<usize> = follow.chords.iter().map(|(_, size)| *size).collect();
    assert_eq!(sizes, [3, 2]);
    let tasks: Vec<&str> = follow.calls.iter().map(|call| call.task.as_str()).collect();
    assert_eq!(tasks, ["a", "b", "d", "e"]);
    let inner_member = member(&follow.calls[0]).unwrap();
    let c = &joined(&inner_member, &[raw("1"), raw("2")], &follow.calls[1], NOW).unwrap().calls[0];
    let outer_member = member(c).unwrap();
    assert_eq!(outer_member.group, follow.chords[0].0);
    assert_eq!(outer_member.index, Some(0));
    assert_eq!(member(&follow.calls[2]).unwrap().group, outer_member.group);
    // The inner chord's failure is a failure of the outer one's member.
    let failure = not_joined(&inner_member, &follow.calls[0], NOW).unwrap();
    assert_eq!(failure.members[0].group, outer_member.group);
    // Without members the body goes at once.
    call.callbacks = Some(vec![signature(&chord("", r#"{"task": "z"}"#))]);
    let follow = succeeded(&call, &raw("1"), NOW).unwrap();
    assert_eq!((follow.calls[0].task.as_str(), follow.calls[0].args.text()), ("z", "[[]]"));
}

#[test]
fn what_is_too_deep_is_refused_before_it_runs() {
    let mut deep = r#"{"task": "a"}"#.to_owned();
    for _ in 0..100 {
        deep = format!(
            r#"{{"task": "celery.chord", "subtask_type": "chord", "kwargs": {{"header": [{deep}], "body": {{"task": "z"}}}}}}"#
        );
    }
    let mut call = Call::new("first", "i");
    call.callbacks = Some(vec![signature(&deep)]);
    assert!(check(&call).unwrap_err().to_string().contains("too deeply"));
    call.callbacks =
        Some(vec![signature(r#"{"task": "celery.group", "subtask_type": "group", "kwargs": {}}"#)]);
    assert!(check(&call).is_err());
}

#[test]
fn celerys_own_tasks_are_known() {
    let builtin = |name: &str| one(name).calls().iter().find_map(|call| Builtin::of(call).unwrap()).unwrap();
    let Builtin::Each(each) = builtin("task_map") else { panic!() };
    let runs: Vec<&str> = each.runs.iter().map(Raw::text).collect();
    assert_eq!((each.task.as_str(), runs), ("lab.xsum", vec!["[[1, 2]]", "[[3, 4]]"]));
    let Builtin::Each(each) = builtin("task_starmap") else { panic!() };
    let runs: Vec<&str> = each.runs.iter().map(Raw::text).collect();
    assert_eq!((each.task.as_str(), runs), ("lab.add", vec!["[1, 2]", "[3, 4]"]));
    let Builtin::ChordUnlock(unlock) = builtin("task_chord_unlock_db_backend") else { panic!() };
    assert_eq!((unlock.members.len(), unlock.body.task.as_str()), (2, "lab.xsum"));
    assert_eq!(Builtin::of(&Call::new("lab.add", "i")).unwrap(), None);
    assert!(Builtin::of(&Call::new("celery.map", "i")).is_err());
}

#[test]
fn every_captured_call_may_be_followed() {
    for file in ["task_", "v1_", "worker_"].iter().flat_map(|prefix| all(prefix)) {
        for text in file.raws() {
            if let Ok(call) = Call::read(&envelope(&text), &crate::fixtures::taking()) {
                check(&call).unwrap_or_else(|wrong| panic!("{}: {wrong}", file.name));
            }
        }
    }
}
