//! Reload: all or nothing, and a storm of wishes is a few.

use nix::sys::signal::Signal;
use taskd::config::settings::Queue;
use taskd::process::launch::ToLauncher;

use crate::rig::{Rig, task};

#[test]
fn a_good_config_is_swapped_and_later_children_have_it() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    let (old, _) = daemon.child("default", 0, "");
    rig.settings.tasks.insert("new".to_owned(), task("new"));
    rig.write_settings();
    rig.signal(Signal::SIGHUP);
    let told = daemon.hear_packet("settings");
    assert_eq!(told["packet"]["generation"], 2);
    assert_eq!(told["packet"]["changes"], serde_json::json!(["changed"]));
    assert_eq!(told["settings"]["generation"], 2);
    assert!(told["settings"]["tasks"]["new"].is_object());
    let (_, runner) = daemon.child("default", 1, "");
    assert_eq!(runner["part"]["generation"], 2);
    assert!(runner["part"]["tasks"]["new"].is_object());
    // The old one was not touched, and a new daemon is told of both as they are.
    daemon.order(old, "echo here");
    daemon.said(old, "echo");
    daemon.command(&serde_json::json!({ "exit": 1 }));
    let mut next = rig.daemon();
    assert_eq!(next.settings.generation, 2);
    let generations = [next.hear_packet("child"), next.hear_packet("child")];
    let generations: Vec<_> =
        generations.iter().map(|c| c["packet"]["generation"].as_u64().unwrap()).collect();
    assert_eq!(generations, [1, 2]);
}

#[test]
fn a_faulty_config_changes_nothing_and_says_why() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    std::fs::write(rig.file("settings.json"), "error: bad at line 4").unwrap();
    daemon.say(&ToLauncher::Reload { keep: Vec::new() });
    assert_eq!(daemon.hear_packet("settings_refused")["packet"]["report"], "error: bad at line 4");
    let node = std::mem::replace(&mut rig.settings.taskd.node, "other".to_owned());
    rig.write_settings();
    daemon.say(&ToLauncher::Reload { keep: Vec::new() });
    let refused = daemon.hear_packet("settings_refused");
    let report = refused["packet"]["report"].as_str().unwrap();
    assert!(report.contains("restart") && report.contains("node"), "{report}");
    rig.settings.taskd.node = node;
    rig.settings.tasks.get_mut("clean").unwrap().user = Some("no-such-user".to_owned());
    rig.write_settings();
    daemon.say(&ToLauncher::Reload { keep: Vec::new() });
    let refused = daemon.hear_packet("settings_refused");
    assert!(refused["packet"]["report"].as_str().unwrap().contains("no-such-user"), "{refused}");
    let (_, runner) = daemon.child("default", 0, "");
    assert_eq!(runner["part"]["generation"], 1);
}

#[test]
fn a_queue_that_holds_messages_cannot_be_removed() {
    let mut rig = Rig::new();
    let side = rig.settings.queues.values().next().cloned().unwrap();
    rig.settings.queues.insert("side".to_owned(), Queue { name: "side".to_owned(), ..side });
    let mut daemon = rig.ready();
    rig.settings.queues.remove("side");
    rig.write_settings();
    daemon.say(&ToLauncher::Reload { keep: vec!["side".to_owned(), "default".to_owned()] });
    let refused = daemon.hear_packet("settings_refused");
    let report = refused["packet"]["report"].as_str().unwrap();
    assert!(report.contains("[queues.side]") && !report.contains("default"), "{report}");
    daemon.say(&ToLauncher::Reload { keep: vec!["default".to_owned(), "of another config".to_owned()] });
    assert_eq!(daemon.hear_packet("settings")["packet"]["generation"], 2);
}

#[test]
fn a_report_of_any_length_arrives() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    std::fs::write(rig.file("settings.json"), "é\u{1}".repeat(200_000)).unwrap();
    daemon.say(&ToLauncher::Reload { keep: Vec::new() });
    let refused = daemon.hear_packet("settings_refused");
    assert!(refused["packet"]["report"].as_str().unwrap().len() > 10_000);
}

#[test]
fn an_unchanged_config_keeps_its_generation() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    daemon.say(&ToLauncher::Reload { keep: Vec::new() });
    let told = daemon.hear_packet("settings");
    assert_eq!(told["packet"]["generation"], 1);
    assert_eq!(told["packet"]["changes"], serde_json::json!([]));
}

#[test]
fn a_storm_of_wishes_during_a_reload_is_one_more_reload() {
    let mut rig = Rig::new();
    let mut daemon = rig.ready();
    let gate = rig.file("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    rig.signal(Signal::SIGHUP);
    // Opening waits until the launcher reads the config, and holds it there.
    let held = std::fs::OpenOptions::new().write(true).open(&gate).unwrap();
    for n in 0..1_000 {
        rig.signal(if n % 2 == 0 { Signal::SIGHUP } else { Signal::SIGUSR1 });
    }
    drop(held);
    daemon.hear_packet("settings");
    drop(std::fs::OpenOptions::new().write(true).open(&gate).unwrap());
    daemon.hear_packet("settings");
    // A third reload would be held at the gate, and nothing would be answered.
    daemon.child("default", 0, "");
    let more = daemon.rest().into_iter().filter(|v| v["packet"]["op"] == "settings").count();
    assert_eq!(more, 0);
}
