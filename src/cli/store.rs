//! `taskd store`: backup, verify, export, import.

use std::path::PathBuf;

use clap::Subcommand;

use crate::control::api::{BackupBody, Done, Exported, count};
use crate::control::client::ClientError;
use crate::control::route::Method;

use super::ndjson::Source;
use super::output::{self, Ending, Failure};
use super::{Context, body_of};

/// Options of `taskd store`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd store backup /var/backups/taskd.db
  taskd store verify
  taskd store export > messages.ndjson

EXIT CODES
  0    done
  69   taskd is not running
  73   not possible in this state
  75   not now; try again
  77   not permitted: needs [access] admin")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done to the store.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a consistent copy of the store while it is in use
    #[command(after_help = "\
EXAMPLES
  taskd store backup /var/backups/taskd.db

The daemon writes the file, so its user must be able to; a large store may need a longer --timeout.

EXIT CODES
  0    the copy is complete
  69   taskd is not running
  73   the file is there already, or cannot be written
  75   not now; try again
  77   not permitted: needs [access] admin")]
    Backup {
        /// The new file
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
    /// Check the store's integrity
    #[command(after_help = "\
EXAMPLES
  taskd store verify --timeout 10m

EXIT CODES
  0    no fault was found
  69   taskd is not running
  70   the store has faults; they are printed
  75   not now; try again
  77   not permitted: needs [access] admin")]
    Verify,
    /// Print every message that is not final, one JSON object a line
    #[command(after_help = "\
EXAMPLES
  taskd drain && taskd store export > messages.ndjson

EXIT CODES
  0    all of them are printed
  69   taskd is not running
  75   it broke off: what was printed is not all
  77   not permitted: needs [access] admin")]
    Export,
    /// Take over exported messages; known ids are left as they are
    #[command(after_help = "\
EXAMPLES
  taskd store import messages.ndjson
  taskd store import - < messages.ndjson

It may be repeated: a message that is there already is not stored again.

EXIT CODES
  0    all of them are stored
  65   a line is no exported message
  66   the file cannot be read
  69   taskd is not running
  75   not now; try again
  77   not permitted: needs [access] admin")]
    Import {
        /// The file; - is stdin
        #[arg(value_name = "FILE")]
        file: String,
    },
}

/// Runs the command.
///
/// # Errors
/// What taskd, the connection or a file says.
pub fn run(args: Args, context: &Context) -> Ending {
    match args.command {
        Command::Backup { path } => backup(&path, context),
        Command::Verify => context.block_on(async {
            context.verb(&mut context.client(), "/v1/store/verify", None).await?;
            Ok(0)
        }),
        Command::Export => context.block_on(export(context)),
        Command::Import { file } => context.block_on(import(&mut Source::open(&file)?, context)),
    }
}

fn backup(path: &PathBuf, context: &Context) -> Ending {
    // The daemon stands in another directory than whoever asks.
    let path = std::path::absolute(path)
        .map_err(|e| Failure::usage(format!("{} is no path: {e}", path.display())))?;
    let Some(path) = path.to_str() else {
        return Err(Failure::usage(format!("{} is not UTF-8", path.display())));
    };
    let body = body_of(&BackupBody { path: path.to_owned() })?;
    context.block_on(async {
        context.verb(&mut context.client(), "/v1/store/backup", Some(body)).await?;
        Ok(0)
    })
}

async fn export(context: &Context) -> Ending {
    let mut client = context.client();
    let mut lines = client.lines("/v1/store/export").await?;
    let mut exported = 0_u64;
    let broke_off =
        |e: ClientError, n| Failure::from(e).context(format_args!("the export broke off after {n}"));
    while let Some(line) = lines.next().await.map_err(|e| broke_off(e, exported))? {
        output::json(line.as_bytes())?;
        exported += 1;
    }
    output::note(format_args!("{} exported", count(exported, "message")));
    Ok(0)
}

async fn import(source: &mut Source, context: &Context) -> Ending {
    let mut client = context.client();
    let mut total = Done { count: Some(0), ..Done::default() };
    let mut lines = 0;
    while let Some(batch) = source.batch::<Exported>()? {
        lines += batch.items.len() as u64;
        let body = body_of(&batch.items)?;
        let answer: Result<Done, _> = client.call(Method::Post, "/v1/store/import", Some(body), true).await;
        let done = answer.map_err(|e| {
            Failure::from(e).context(format_args!("{} and what follows", source.place(&batch)))
        })?;
        total.count = Some(total.count.unwrap_or(0) + done.count.unwrap_or(0));
        total.details.extend(done.details);
    }
    total.message = format!("{} of {} imported", total.count.unwrap_or(0), count(lines, "message"));
    context.show(&body_of(&total)?, super::done_text)?;
    Ok(0)
}
