//! `taskd tasks`: what is declared.

use std::time::Duration;

use crate::control::api::TaskView;
use crate::control::route::Method;

use super::Context;
use super::output::{Ending, clean};
use super::table::{Column, render};

/// Options of `taskd tasks`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd tasks
  taskd tasks --json | jq -r '.[].name'

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
        let answer = context.client().text(Method::Get, "/v1/tasks", None, true, Duration::ZERO).await?;
        context.show(&answer, |tasks: &Vec<TaskView>| text(tasks))?;
        Ok(0)
    })
}

/// The table.
#[must_use]
pub fn text(tasks: &[TaskView]) -> String {
    if tasks.is_empty() {
        return "no task is declared; add [tasks.NAME] to the config and run `taskd reload`\n".to_owned();
    }
    let rows = tasks.iter().map(|t| {
        let kind = if t.enabled { t.kind.clone() } else { format!("{}, disabled", t.kind) };
        vec![t.name.clone(), kind, t.queue.clone(), t.params.join(" ")]
    });
    let unique: String = tasks
        .iter()
        .filter_map(|t| Some(format!("{}: unique by {}\n", clean(&t.name), clean(t.unique.as_ref()?))))
        .collect();
    let columns =
        [Column::Text("TASK"), Column::Text("KIND"), Column::Text("QUEUE"), Column::Text("PARAMETERS")];
    let mut shown = render(&columns, rows.collect());
    if !unique.is_empty() {
        shown.push('\n');
        shown.push_str(&unique);
    }
    let limited: Vec<&TaskView> = tasks.iter().filter(|t| !t.limits.is_empty()).collect();
    if !limited.is_empty() {
        shown.push('\n');
    }
    for task in limited {
        shown.push_str(&format!("{}: at most {}\n", clean(&task.name), clean(&task.limits.join(", "))));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_fit_the_terminal() {
        let task = |name: &str, enabled, params: &[&str]| TaskView {
            name: name.into(),
            kind: "exec".into(),
            queue: "default".into(),
            params: params.iter().map(|p| (*p).to_owned()).collect(),
            one_of: std::collections::BTreeMap::new(),
            limits: if name == "old" {
                vec!["10/m for each customer".into(), "2 at once".into()]
            } else {
                vec![]
            },
            enabled,
            unique: None,
        };
        let shown = text(&[
            task("send_email", true, &["user_id=int", "template=string=welcome"]),
            task("old", false, &[]),
        ]);
        assert_eq!(
            anstream::adapter::strip_str(&shown).to_string(),
            "TASK        KIND            QUEUE    PARAMETERS\n\
             send_email  exec            default  user_id=int template=string=welcome\n\
             old         exec, disabled  default\n\n\
             old: at most 10/m for each customer, 2 at once\n"
        );
        let long = text(&[task(&"x".repeat(128), false, &["y".repeat(100).as_str(); 3])]);
        assert!(anstream::adapter::strip_str(&long).to_string().lines().all(|l| l.len() <= 80), "{long}");
    }
}
