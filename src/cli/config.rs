//! `taskd config`: the effective settings.

use std::process::ExitCode;

use super::output::{self, Ending};
use super::{ConfigFile, Context, check};
use crate::config::{self, Source};

/// Options of `taskd config`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd config
  taskd config --show-origin
  taskd config --schema > taskd.schema.json

EXIT CODES
  0    printed
  66   the file cannot be read
  78   the config has faults")]
pub struct Args {
    /// Say for each value which file and line it comes from
    #[arg(long, conflicts_with = "schema")]
    pub show_origin: bool,
    /// Print the JSON Schema of the file, for editors
    #[arg(long)]
    pub schema: bool,
    /// The config.
    #[command(flatten)]
    pub config: ConfigFile,
}

/// Runs the command.
#[must_use]
pub fn run(args: Args, context: &Context) -> ExitCode {
    output::ended(show(args, context), context.json)
}

fn show(args: Args, context: &Context) -> Ending {
    if args.schema {
        output::print(&format!("{:#}\n", config::schema()))?;
        return Ok(0);
    }
    let loaded = check::load(&Source::find(args.config.config, &context.home), context)?;
    if context.json {
        output::json(config::show_json(&loaded).to_string().as_bytes())?;
    } else {
        output::print(&config::show(&loaded, args.show_origin))?;
    }
    Ok(0)
}
