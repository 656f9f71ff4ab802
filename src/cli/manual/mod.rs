//! The hidden command `taskd manual`: the manual pages as roff, for whoever builds a package. What `--help` and
//! the table of config keys say is taken from there; the rest of the prose stands in the file of its page.

mod command_page;
mod config_page;
mod help;
mod protocol_page;
mod roff;

use super::Context;
use super::output::{self, Ending};

/// A manual page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// The command
    #[value(name = "taskd.1")]
    Command,
    /// The config file
    #[value(name = "taskd.toml.5")]
    Config,
    /// The child protocol
    #[value(name = "taskd-worker.7")]
    Protocol,
}

/// Options of `taskd manual`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd manual taskd.1 | man -l -

The date of the page is that of $SOURCE_DATE_EPOCH; without it there is none, so that what is printed
depends on nothing but the program.

EXIT CODES
  0    printed")]
pub struct Args {
    /// The page
    #[arg(value_name = "PAGE")]
    pub page: Name,
}

/// Runs the command.
///
/// # Errors
/// stdout cannot be written.
pub fn run(args: &Args, _context: &Context) -> Ending {
    output::bytes(false, page(args.page, &date()).as_bytes())?;
    Ok(0)
}

/// The text of a page.
fn page(name: Name, date: &str) -> String {
    match name {
        Name::Command => command_page::page(date),
        Name::Config => config_page::page(date),
        Name::Protocol => protocol_page::page(date),
    }
}

/// The day of $SOURCE_DATE_EPOCH (reproducible-builds.org), or nothing.
fn date() -> String {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok();
    let seconds = epoch.and_then(|s| s.trim().parse::<i64>().ok());
    let at = seconds.and_then(|s| jiff::Timestamp::from_second(s).ok());
    at.map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}
