//! `taskd graph`: a workflow as a drawing.

use crate::control::api::StepView;
use crate::control::canvas::DeclaredView;
use crate::control::client::ClientError;
use crate::control::route::Method;
use crate::model::workflow::When;

use super::output::{self, Ending, Failure};
use super::{Context, checked, show};

/// Options of `taskd graph`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd graph nightly
  taskd graph nightly --dot | dot -Tsvg > nightly.svg
  taskd graph 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f --dot

What is named is a workflow that the config declares, or else the id of one that was launched.

EXIT CODES
  0    printed
  69   no such workflow; taskd is not running
  75   not now; try again
  77   not permitted: needs [access] read, or one's own workflow")]
pub struct Args {
    /// The workflow
    #[arg(value_name = "WORKFLOW|ID")]
    pub workflow: String,
    /// Print it in the language of graphviz
    #[arg(long)]
    pub dot: bool,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let name = checked("workflow", &args.workflow)?;
    context.block_on(async {
        let mut client = context.client();
        let declared = client.call::<Vec<DeclaredView>>(Method::Get, "/v1/workflows", None, true).await;
        let declared = match declared {
            Ok(all) => all.into_iter().find(|w| w.name == name),
            // One's own workflow may be looked at without the right to read everything.
            Err(ClientError::Api(_)) => None,
            Err(e) => return Err(e.into()),
        };
        let steps = match declared {
            Some(declared) => declared.steps,
            None => show::whole(&mut client, name).await?.list,
        };
        if context.json {
            let json = serde_json::to_vec(&steps).map_err(|e| Failure::internal(e.to_string()))?;
            output::json(&json)?;
        } else if args.dot {
            output::print(&dot(name, &steps))?;
        } else {
            output::print(&show::tree(&steps, false, |_| String::new()).replace("  \n", "\n"))?;
        }
        Ok(0)
    })
}

/// As graphviz reads it.
fn dot(name: &str, steps: &[StepView]) -> String {
    let mut text = format!("digraph \"{}\" {{\n  rankdir = LR;\n  node [shape = box];\n", quoted(name));
    for step in steps {
        let (label, color) = (quoted(&show::label(step)), color(&step.state));
        text.push_str(&format!("  {} [label = \"{label}\"{color}];\n", step.no));
    }
    for step in steps {
        let style = if step.when == When::Failure { " [style = dashed, label = \"on failure\"]" } else { "" };
        for before in &step.after {
            text.push_str(&format!("  {before} -> {}{style};\n", step.no));
        }
    }
    text.push_str("}\n");
    text
}

fn color(state: &str) -> &'static str {
    match state {
        "SUCCESS" => ", color = green",
        "FAILURE" | "DEAD" | "REVOKED" | "EXPIRED" => ", color = red",
        "RUNNING" => ", color = blue",
        "SKIPPED" => ", color = gray, fontcolor = gray",
        _ => "",
    }
}

fn quoted(text: &str) -> String {
    output::clean(text).replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphviz_gets_every_step_and_every_edge() {
        let steps: Vec<StepView> = serde_json::from_value(serde_json::json!([
            {"no": 0, "id": "a", "task": "fe\"tch", "state": "SUCCESS"},
            {"no": 1, "id": "b", "task": "tell", "state": "SKIPPED", "after": [0], "when": "failure"},
        ]))
        .unwrap();
        assert_eq!(
            dot("w", &steps),
            "digraph \"w\" {\n  rankdir = LR;\n  node [shape = box];\n  0 [label = \"fe\\\"tch\", color = green];\n  \
             1 [label = \"tell\", color = gray, fontcolor = gray];\n  0 -> 1 [style = dashed, label = \"on failure\"];\n}\n"
        );
    }
}
