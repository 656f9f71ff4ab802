//! `taskd store`: backup, verify, export, import.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Subcommand;

use crate::control::api::{BackupPiece, Done, Exported, count};
use crate::control::client::{Client, ClientError};
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
  taskd store backup - | zstd > taskd.db.zst

The daemon makes the copy beside the store and sends it; the file is yours, with mode 0600, and never written over one
that is there.

EXIT CODES
  0    the copy is complete
  69   taskd is not running
  73   the file is there already, or cannot be written
  75   not now; try again
  77   not permitted: needs [access] admin")]
    Backup {
        /// The new file; - is stdout
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

It is for moving what waits to another store. Workflows are not exported: while one is not over nothing is printed,
unless --leave-workflows says that its messages alone will do. `taskd store backup` copies everything.

EXIT CODES
  0    all of them are printed
  69   taskd is not running
  73   there are workflows that are not over
  75   it broke off: what was printed is not all
  77   not permitted: needs [access] admin")]
    Export {
        /// Export the messages of workflows too, without what is to follow them
        #[arg(long)]
        leave_workflows: bool,
    },
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
        Command::Backup { path } => context.block_on(backup(&path, context)),
        Command::Verify => context.block_on(async {
            context.verb(&mut context.client(), "/v1/store/verify", None).await?;
            Ok(0)
        }),
        Command::Export { leave_workflows } => context.block_on(export(leave_workflows, context)),
        Command::Import { file } => context.block_on(import(&mut Source::open(&file)?, context)),
    }
}

/// The daemon sends the copy, and it is written here: with the rights of whoever asked, where that person stands.
async fn backup(path: &Path, context: &Context) -> Ending {
    let mut client = context.client();
    if path == Path::new("-") {
        let bytes = receive(&mut client, &mut io::stdout().lock(), Path::new("stdout")).await?;
        output::note(format_args!("the store was copied: {bytes} bytes"));
        return Ok(0);
    }
    let cannot = |e: io::Error| Failure::no_output(format!("cannot write {}: {e}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    let copied = match receive(&mut client, &mut file, path).await {
        Ok(bytes) => file.sync_all().and_then(|()| sync_parent(path)).map_err(cannot).map(|()| bytes),
        Err(failure) => Err(failure),
    };
    match copied {
        Ok(_) => {
            let done =
                Done { message: format!("the store was copied to {}", path.display()), ..Done::default() };
            context.show(&body_of(&done)?, super::done_text)?;
            Ok(0)
        }
        Err(failure) => {
            // Half a copy would be taken for one.
            let _ = std::fs::remove_file(path);
            Err(failure)
        }
    }
}

async fn receive(client: &mut Client, to: &mut impl Write, name: &Path) -> Result<u64, Failure> {
    let broke_off = |e: ClientError| Failure::from(e).context("the copy is not whole");
    let strange = |what: &str| broke_off(ClientError::Strange(what.to_owned()));
    let cannot = |e: io::Error| Failure::no_output(format!("cannot write {}: {e}", name.display()));
    let mut pieces = client.lines("/v1/store/backup").await?;
    let mut written = 0;
    while let Some(line) = pieces.next().await.map_err(broke_off)? {
        match super::parse(line.as_bytes())? {
            BackupPiece::Data(text) => {
                let piece =
                    BASE64_STANDARD.decode(text).map_err(|_| strange("a piece that is not base64"))?;
                to.write_all(&piece).map_err(cannot)?;
                written += piece.len() as u64;
            }
            BackupPiece::Bytes(bytes) if bytes == written => {
                return to.flush().map_err(cannot).map(|()| written);
            }
            BackupPiece::Bytes(bytes) => {
                return Err(strange(&format!("{written} of {bytes} bytes")));
            }
        }
    }
    Err(broke_off(ClientError::Broken("it ended before its end".to_owned())))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

async fn export(leave_workflows: bool, context: &Context) -> Ending {
    let mut client = context.client();
    let path = if leave_workflows { "/v1/store/export?leave_workflows=true" } else { "/v1/store/export" };
    let mut lines = client.lines(path).await?;
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
