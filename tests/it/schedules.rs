//! `taskd schedules`: what expressions mean.

use std::process::Command;
use std::time::Duration;

use super::harness::Ran;

mod fires;
mod workflows;

/// `taskd schedules explain` with these arguments, where no taskd runs and no config is.
fn explain(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskd"));
    command.args(["schedules", "explain"]).args(args).env_clear().env("TZ", "Europe/Paris").current_dir("/");
    Ran::of(&mut command, Duration::from_secs(30))
}

#[test]
fn explain_says_when_in_words_and_names_what_the_clocks_do() {
    explain(&["0 3 * * 1-5", "--tz", "Europe/Berlin", "--after", "2026-03-27", "-n", "3"])
        .code(0)
        .fits_80_columns()
        .shows(&[
            "At 03:00 on weekdays (Europe/Berlin)",
            "Fri 2026-03-27 03:00:00 +01:00",
            "Mon 2026-03-30 03:00:00 +02:00",
            "Tue 2026-03-31",
        ]);
    let gap = ["30 2 * * *", "--tz", "Europe/Berlin", "--after", "2026-03-29", "-n", "2"];
    explain(&gap).code(0).fits_80_columns().shows(&[
        "Sun 2026-03-29 03:00:00 +02:00",
        "02:30 does not exist on this day, runs at 03:00",
        "Mon 2026-03-30 02:30:00 +02:00",
    ]);
    let json = explain(&[&gap[..], &["--json"]].concat()).code(0).json();
    assert_eq!(
        (json["timezone"].as_str(), json["real_time"].as_bool()),
        (Some("Europe/Berlin"), Some(false))
    );
    assert_eq!(json["words"], "At 02:30 every day");
    assert_eq!(json["next"].as_array().unwrap().len(), 2);
    assert_eq!(json["next"][0]["at"], 1_774_746_000_000_i64);
    assert_eq!(json["next"][0]["local"], "2026-03-29T03:00:00+02:00");
    assert_eq!(json["next"][0]["edge"]["kind"], "gap");
    assert!(json["next"][1]["edge"].is_null());
    // The machine's zone where none is named.
    explain(&["*/30 * * * *", "--after", "2026-10-25 01:59", "-n", "4"]).code(0).fits_80_columns().shows(&[
        "Every 30 minutes (Europe/Paris)",
        "02:30:00 +02:00",
        "02:30 comes twice on this day, this is the first time",
        "02:30:00 +01:00",
        "this is the second time",
    ]);
}

#[test]
fn explain_points_at_what_is_wrong() {
    explain(&["0 61 * * *"]).code(65).says(&[
        "the expression has \"61\" as hour",
        "\n    ^^\n",
        "between 0 and 23",
    ]);
    explain(&["@reboot"]).code(65).says(&["@reboot", "systemd unit"]);
    explain(&["0 0 30 2 *"]).code(65).says(&["never comes"]);
    explain(&["@daily", "--tz", "Mars/Base"]).code(64).one_clear_line().says(&["Mars/Base", "Europe/Berlin"]);
    explain(&["@daily", "--after", "soon"])
        .code(64)
        .one_clear_line()
        .says(&["--after", "write HH:MM, YYYY-MM-DD"]);
    explain(&["@daily", "--socket", "/x"]).code(64).one_clear_line().says(&["asks no daemon"]);
    let json = explain(&["0 61 * * *", "--json"]).code(65);
    assert!(
        serde_json::from_str::<serde_json::Value>(&json.err).unwrap()["hint"].is_string(),
        "{}",
        json.err
    );
}
