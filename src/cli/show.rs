//! `taskd show`: a workflow with the states of its steps.

use std::time::Duration;

use crate::control::api::{StepView, WorkflowView};
use crate::control::client::Client;
use crate::control::route::Method;
use crate::model::state::State;
use crate::model::workflow::When;

use super::output::{self, Ending, Failure};
use super::{Context, checked, parse, table};

/// Options of `taskd show`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd show 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f
  taskd show 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f --all
  taskd show 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f --json | jq '.list[] | select(.state == \"FAILURE\")'

The id is that of a workflow, or of a message of it. A step stands below those that it comes after;
where it comes after several, their numbers are told. Of many equal steps the first are shown.

EXIT CODES
  0    printed
  69   no such workflow; taskd is not running
  75   not now; try again
  77   not permitted: not one's own workflow, and no [access] read")]
pub struct Args {
    /// The workflow, or a message of it
    #[arg(value_name = "ID")]
    pub id: String,
    /// Every step, however many are equal
    #[arg(long)]
    pub all: bool,
}

/// Equal steps that are shown.
const EQUAL: usize = 5;

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let id = checked("id", &args.id)?;
    context.block_on(async {
        let view = whole(&mut context.client(), id).await?;
        if context.json {
            let json = serde_json::to_vec(&view).map_err(|e| Failure::internal(e.to_string()))?;
            output::json(&json)?;
        } else {
            output::print(&text(&view, args.all))?;
        }
        Ok(0)
    })
}

/// A workflow with all its steps.
///
/// # Errors
/// What taskd or the connection says.
pub async fn whole(client: &mut Client, id: &str) -> Result<WorkflowView, Failure> {
    let mut view: Option<WorkflowView> = None;
    loop {
        let from = view.as_ref().and_then(|v| v.next).unwrap_or(0);
        let path = format!("/v1/workflows/{id}?from={from}");
        let answer = client.text(Method::Get, &path, None, true, Duration::ZERO).await?;
        let part: WorkflowView = parse(&answer)?;
        let whole = match view.take() {
            None => part,
            Some(mut before) => {
                before.list.extend(part.list);
                WorkflowView { list: before.list, ..part }
            }
        };
        if whole.next.is_none() {
            return Ok(whole);
        }
        view = Some(whole);
    }
}

/// A line for the whole, and one for each step.
fn text(view: &WorkflowView, all: bool) -> String {
    let mut text = format!(
        "{} {} {}, {}",
        output::clean(&view.name),
        output::clean(&view.id),
        table::state_styled(view.state),
        crate::control::api::count(u64::from(view.steps), "step")
    );
    for (n, what) in [(view.open, "not over"), (view.failed, "failed")] {
        if n > 0 {
            text.push_str(&format!(", {n} {what}"));
        }
    }
    if let Some(schedule) = &view.schedule {
        text.push_str(&format!(", schedule {}", output::clean(schedule)));
    }
    if view.state == State::Scheduled {
        text.push_str(", waits for the run before");
    }
    text.push('\n');
    text.push_str(&tree(&view.list, all, |step| match State::parse(&step.state) {
        Some(state) => format!("{}  {}", table::state_styled(state), output::clean(&step.id)),
        None => format!("{}  {}", output::clean(&step.state), output::clean(&step.id)),
    }));
    text
}

/// A line for each step, below the steps it comes after; `told` says what stands behind its name.
#[must_use]
pub fn tree(steps: &[StepView], all: bool, told: impl Fn(&StepView) -> String) -> String {
    let mut text = String::new();
    let mut depths: Vec<usize> = Vec::with_capacity(steps.len());
    let mut equal: (usize, usize) = (0, 0);
    let same = |a: &StepView, b: &StepView| {
        (&a.task, &a.state, &a.after, a.when) == (&b.task, &b.state, &b.after, b.when)
    };
    for (at, step) in steps.iter().enumerate() {
        let depth = |no: &u32| depths.get(*no as usize).copied().unwrap_or(0) + 1;
        let depth = step.after.iter().map(depth).max().unwrap_or(0);
        depths.push(depth);
        let before = at.checked_sub(1).and_then(|at| steps.get(at));
        equal = match before.filter(|b| same(b, step)) {
            Some(_) => (equal.0 + 1, depth),
            None => {
                more(&mut text, equal, all);
                (0, depth)
            }
        };
        if !all && equal.0 >= EQUAL {
            continue;
        }
        // Far below there is no room for what is to be read.
        let indent = "  ".repeat(depth.min(20) + 1);
        text.push_str(&format!("{indent}{} {}", step.no, output::clean(&label(step))));
        if step.when == When::Failure {
            text.push_str(" (on failure)");
        }
        if let [_, _, ..] = step.after.as_slice() {
            text.push_str(&format!(" after {}", ranges(&step.after)));
        } else if let ([before], true) =
            (step.after.as_slice(), step.after.first() != step.no.checked_sub(1).as_ref())
        {
            text.push_str(&format!(" after {before}"));
        }
        text.push_str(&format!("  {}\n", told(step)));
    }
    more(&mut text, equal, all);
    text
}

fn more(text: &mut String, (equal, depth): (usize, usize), all: bool) {
    let hidden = (equal + 1).saturating_sub(EQUAL);
    if !all && equal >= EQUAL {
        text.push_str(&format!("{}… and {hidden} more like it\n", "  ".repeat(depth.min(20) + 1)));
    }
}

/// What a step is called: its name where it has one of its own, and its task.
#[must_use]
pub fn label(step: &StepView) -> String {
    if step.name.is_empty() || step.name == step.task || step.name == step.no.to_string() {
        step.task.clone()
    } else {
        format!("{} ({})", step.name, step.task)
    }
}

/// `0-2, 5`: numbers that follow one another are put together.
fn ranges(numbers: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for n in numbers {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*n) => *last = *n,
            _ => parts.push((*n, *n)),
        }
    }
    let shown = parts.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(no: u32, state: &str, after: &[u32]) -> StepView {
        serde_json::from_value(serde_json::json!({
            "no": no, "id": format!("id-{no}"), "task": "t", "state": state, "after": after,
        }))
        .unwrap()
    }

    fn shown(steps: &[StepView], all: bool) -> String {
        tree(steps, all, |s| s.state.clone())
    }

    #[test]
    fn steps_stand_below_those_they_come_after() {
        let mut steps = vec![
            step(0, "SUCCESS", &[]),
            step(1, "FAILURE", &[]),
            step(2, "FAILURE", &[0, 1]),
            step(3, "RUNNING", &[2]),
            step(4, "PENDING", &[0]),
        ];
        steps[3].when = When::Failure;
        steps[4].name = "last".into();
        assert_eq!(
            shown(&steps, false),
            "  0 t  SUCCESS\n  1 t  FAILURE\n    2 t after 0-1  FAILURE\n      3 t (on failure)  RUNNING\n    \
             4 last (t) after 0  PENDING\n"
        );
    }

    #[test]
    fn many_equal_steps_are_counted() {
        let mut steps: Vec<StepView> = (0..12).map(|no| step(no, "SUCCESS", &[])).collect();
        steps.push(step(12, "PENDING", &(0..12).collect::<Vec<_>>()));
        let text = shown(&steps, false);
        assert_eq!(text.lines().count(), 5 + 1 + 1, "{text}");
        assert!(text.contains("… and 7 more like it") && text.contains("after 0-11"), "{text}");
        assert_eq!(shown(&steps, true).lines().count(), 13);
    }
}
