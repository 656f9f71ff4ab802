//! `taskd queues`: every queue and what waits in it.

use std::time::Duration;

use crate::control::api::QueueView;
use crate::control::route::Method;

use super::Context;
use super::output::{Ending, clean};
use super::table::{Column, render};

/// Options of `taskd queues`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd queues
  taskd queues --json | jq '.[] | select(.waiting > 1000)'

EXIT CODES
  0    printed
  69   taskd is not running
  75   not now; try again
  77   not permitted: needs [access] read")]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(_args: &Args, context: &Context) -> Ending {
    context.block_on(async {
        let answer = context.client().text(Method::Get, "/v1/queues", None, true, Duration::ZERO).await?;
        context.show(&answer, |queues: &Vec<QueueView>| text(queues))?;
        Ok(0)
    })
}

/// The table, and below it what does not fit into columns.
#[must_use]
pub fn text(queues: &[QueueView]) -> String {
    let mut notes = String::new();
    let rows = queues.iter().map(|q| {
        let full = q.max_length.is_some_and(|max| q.waiting.saturating_add(q.scheduled) >= max);
        let gone = q.pool.is_empty();
        let state = match (gone, q.paused, full) {
            (true, ..) => "gone",
            (_, true, _) => "paused",
            (.., true) => "full",
            _ => "open",
        };
        let name = clean(&q.name);
        if let Some(n) = q.concurrency {
            notes.push_str(&format!("{name}: at most {n} at once\n"));
        }
        if let Some(rate) = &q.rate {
            notes.push_str(&format!("{name}: {} start at most\n", clean(rate)));
        }
        if let Some(n) = q.max_length {
            notes.push_str(&format!("{name}: at most {n} may wait\n"));
        }
        if q.unknown > 0 {
            notes.push_str(&format!(
                "{name}: {} of tasks that are not declared; they come back when a reload declares them\n",
                q.unknown
            ));
        }
        if q.dead > 0 {
            notes.push_str(&format!("{name}: {} dead (taskd dead list --queue {name})\n", q.dead));
        }
        if gone {
            notes.push_str(&format!("{name}: not declared any more; declare it again to drain it\n"));
        }
        let weight = if q.strict { "strict".to_owned() } else { q.weight.to_string() };
        vec![
            q.name.clone(),
            q.pool.clone(),
            weight,
            q.waiting.to_string(),
            q.scheduled.to_string(),
            q.running.to_string(),
            state.to_owned(),
        ]
    });
    let columns = [
        Column::Text("QUEUE"),
        Column::Text("POOL"),
        Column::Number("WEIGHT"),
        Column::Number("WAITING"),
        Column::Number("SCHEDULED"),
        Column::Number("RUNNING"),
        Column::Whole("STATE"),
    ];
    let table = render(&columns, rows.collect());
    if notes.is_empty() { table } else { format!("{table}\n{notes}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueView {
        QueueView {
            name: name.into(),
            pool: "default".into(),
            weight: 1,
            strict: false,
            waiting: 0,
            scheduled: 0,
            running: 0,
            unknown: 0,
            dead: 0,
            paused: false,
            concurrency: None,
            rate: None,
            max_length: None,
        }
    }

    #[test]
    fn queues_fit_the_terminal() {
        let shown = text(&[
            queue("default"),
            QueueView {
                strict: true,
                waiting: 1_000_000,
                scheduled: 12,
                running: 1,
                unknown: 3,
                paused: true,
                concurrency: Some(1),
                rate: Some("10/m".into()),
                ..queue("low_priority")
            },
            QueueView { waiting: 10, max_length: Some(10), weight: 10, ..queue("mail") },
            QueueView { waiting: 2, pool: String::new(), weight: 0, ..queue("old") },
        ]);
        assert_eq!(
            anstream::adapter::strip_str(&shown).to_string(),
            "\
QUEUE         POOL     WEIGHT  WAITING  SCHEDULED  RUNNING  STATE
default       default       1        0          0        0  open
low_priority  default  strict  1000000         12        1  paused
mail          default      10       10          0        0  full
old                         0        2          0        0  gone

low_priority: at most 1 at once
low_priority: 10/m start at most
low_priority: 3 of tasks that are not declared; they come back when a reload declares them
mail: at most 10 may wait
old: not declared any more; declare it again to drain it
"
        );
        let long = QueueView { waiting: u64::MAX, pool: "p".repeat(128), ..queue(&"q".repeat(128)) };
        let shown = anstream::adapter::strip_str(&text(&[long])).to_string();
        assert!(shown.lines().all(|l| l.len() <= 80), "{shown}");
    }
}
