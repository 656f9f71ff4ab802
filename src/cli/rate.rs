//! `taskd rate`: how often a task's or a queue's messages start, shown and changed while taskd runs.

use std::time::Duration;

use crate::control::api::{RateBody, RateView};
use crate::control::route::Method;

use super::output::{Ending, Failure, clean};
use super::{Context, body_of, checked};

/// Options of `taskd rate`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  taskd rate send_email
  taskd rate send_email 5/s
  taskd rate send_email 100/h --burst 10 --keep
  taskd rate send_email none
  taskd rate send_email default
  taskd rate mail 50/s --queue

Without a rate it prints the one in force and where it comes from. A change holds at once, also for
what waits already: until the next reload or restart, or with --keep until `taskd rate NAME default`.
A task's rate counts as its rate_limit_key says; it holds over all nodes that share the broker.

EXIT CODES
  0    printed; changed
  64   not a rate
  69   no such task or queue; taskd is not running
  75   not now; try again
  77   not permitted: needs [access] read to look, [access] admin to change")]
pub struct Args {
    /// The task's name; with --queue the queue's
    #[arg(value_name = "NAME")]
    pub name: String,
    /// A rate as 10/m (/s, /m, /h, /d), `none` for no limit, or `default` for what the config says
    #[arg(value_name = "RATE")]
    pub rate: Option<String>,
    /// How many may start at once after a time without any [default: what the config says, else 1]
    #[arg(long, value_name = "N", requires = "rate", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub burst: Option<u32>,
    /// Keep it over reloads and restarts
    #[arg(long, requires = "rate")]
    pub keep: bool,
    /// The name is a queue's
    #[arg(long)]
    pub queue: bool,
}

/// Runs the command.
///
/// # Errors
/// What taskd or the connection says; the rate is none.
pub fn run(args: &Args, context: &Context) -> Ending {
    let what = if args.queue { "queue" } else { "task" };
    let path = format!("/v1/{what}s/{}/rate", checked(what, &args.name)?);
    let body = match &args.rate {
        None => None,
        Some(rate) => {
            let named = matches!(rate.as_str(), "none" | "default");
            if named && args.burst.is_some() {
                return Err(Failure::usage(format!("--burst has no meaning with {rate}")));
            }
            if rate == "default" && args.keep {
                return Err(Failure::usage("--keep has no meaning with default: nothing is kept then"));
            }
            if !named {
                crate::config::values::rate(rate).map_err(|wrong| {
                    Failure::usage(format!("the rate {}", wrong.message)).hint(wrong.help)
                })?;
            }
            let body = RateBody { rate: rate.clone(), burst: args.burst, keep: args.keep };
            Some(body_of(&body)?)
        }
    };
    context.block_on(async {
        let method = if body.is_some() { Method::Post } else { Method::Get };
        let answer =
            context.client().text(method, &path, body, method == Method::Get, Duration::ZERO).await?;
        context.show(&answer, text)?;
        Ok(0)
    })
}

/// What is in force, and why.
#[must_use]
pub fn text(view: &RateView) -> String {
    let each = view.each.as_ref().map(|p| format!(" for each {}", clean(p))).unwrap_or_default();
    let rate = match &view.rate {
        Some(rate) => format!("{rate}{each}"),
        None => "no limit".to_owned(),
    };
    let config = view.config.as_deref().unwrap_or("no limit");
    let from = match view.from.as_str() {
        "config" if view.config.is_none() => "the config sets none".to_owned(),
        "config" => "from the config".to_owned(),
        "kept" => format!("kept by `taskd rate --keep`; the config says {config}"),
        _ => format!("set by `taskd rate` until the next reload or restart; then {}", view.then),
    };
    format!("{}: {} ({from})\n", clean(&view.name), clean(&rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_what_is_in_force_and_where_it_comes_from() {
        let view = RateView {
            name: "mail".into(),
            rate: Some("10/m".into()),
            from: "config".into(),
            config: Some("10/m".into()),
            then: "10/m".into(),
            each: Some("customer".into()),
        };
        assert_eq!(text(&view), "mail: 10/m for each customer (from the config)\n");
        let now = RateView { rate: None, from: "now".into(), each: None, ..view.clone() };
        assert_eq!(
            text(&now),
            "mail: no limit (set by `taskd rate` until the next reload or restart; then 10/m)\n"
        );
        let kept = RateView { rate: Some("1/s".into()), from: "kept".into(), config: None, ..view };
        assert_eq!(
            text(&kept),
            "mail: 1/s for each customer (kept by `taskd rate --keep`; the config says no limit)\n"
        );
    }
}
