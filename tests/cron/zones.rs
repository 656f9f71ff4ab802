//! The zones and changes that are looked at.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Every zone of the system's tzdata whose offset changes in the years 2024 to 2030, with the seconds of its changes.
pub fn changing() -> Vec<(String, Vec<i64>)> {
    let from: Timestamp = "2024-01-01T00:00Z".parse().unwrap();
    let until: Timestamp = "2031-01-01T00:00Z".parse().unwrap();
    let mut found = Vec::new();
    for name in jiff::tz::db().available() {
        let name = name.to_string();
        let Ok(tz) = TimeZone::get(&name) else { continue };
        let mut before = tz.to_offset(from).seconds();
        let mut changes = Vec::new();
        for change in tz.following(from).take_while(|c| c.timestamp() < until) {
            // A change of the name alone is none.
            if change.offset().seconds() != before {
                before = change.offset().seconds();
                changes.push(change.timestamp().as_second());
            }
        }
        if !changes.is_empty() {
            found.push((name, changes));
        }
    }
    found
}
