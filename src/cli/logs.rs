//! `taskd logs`: what a message's attempts printed.

use crate::control::api::MessageView;
use crate::control::route::Method;

use super::output::{self, Ending};
use super::{Context, checked, ending, enqueue, follow};

/// Options of `taskd logs`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd logs 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f
  taskd logs -f 0198f0aa-7c1e-7b5e-9f3a-2f6b1c9d8e7f

stdout and stderr of the task both come to stdout; --json says which is which. Of long output the
beginning and the end are kept ([results] output_max_size).

EXIT CODES
  0    printed
  69   no such message; taskd is not running
  75   not now, or with -f not final after --timeout
  77   not permitted: not one's own message, and no [access] read")]
pub struct Args {
    /// The message
    #[arg(value_name = "ID")]
    pub id: String,
    /// Go on until the message is final
    #[arg(short, long)]
    pub follow: bool,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says.
pub fn run(args: &Args, context: &Context) -> Ending {
    let id = checked("id", &args.id)?;
    let to = if context.json { follow::To::Json } else { follow::To::Stdout };
    context.block_on(async {
        let mut client = context.client();
        let printing = follow::print(&mut client, id, args.follow, to);
        if args.follow {
            enqueue::within(context, id, printing).await?;
        } else {
            printing.await?;
        }
        // What was asked for is printed; that this remark cannot be made is no failure.
        let path = format!("/v1/messages/{id}");
        let view = client.call::<MessageView>(Method::Get, &path, None, true).await;
        if let Some(dropped) = view.ok().as_ref().and_then(ending::dropped) {
            output::note(dropped);
        }
        Ok(0)
    })
}
