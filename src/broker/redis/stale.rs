//! What a Celery worker took and never acknowledged goes back to its list, as Celery's own workers do it: where taskd
//! alone is left of a fleet, nobody else would.

use super::args::Args;
use super::reply::Reader;
use super::steps::fault;
use super::store::Store;
use crate::celery::envelope::Unacked;
use crate::model::op::Fault;

/// Messages that are looked at in one go.
const MOST: usize = 50;

impl Store {
    /// Gives back what nobody renewed for as long as kombu's visibility timeout says; of queues of this node only.
    pub(super) fn give_back_stale(&mut self) -> Result<(), Fault> {
        let queues = self.peer().map(|peer| peer.queues.clone()).unwrap_or_default();
        let timeout = self.options.address.visibility_timeout.as_secs().max(1);
        // Those of other queues stay where they are: the next ones stand behind them.
        let mut past = 0;
        loop {
            let mut args = Args::default();
            args.num(timeout).num(past).num(MOST);
            let list = self.ask("stale", args)?;
            let (seen, mut back) = (list.len(), 0);
            for value in list.each() {
                let mut entry = Reader::of(value).map_err(fault)?;
                let (tag, raw) = (entry.text().map_err(fault)?, entry.bytes().map_err(fault)?);
                // Somebody's own format: not taskd's to move.
                let Ok(mut unacked) = Unacked::read(&raw) else { continue };
                let queue = unacked.address.routing_key.clone();
                if !queues.contains(&queue) {
                    continue;
                }
                unacked.envelope.mark_redelivered();
                let mut args = Args::default();
                args.text(tag.as_str()).num(timeout).text(queue.as_str());
                args.num(1 + usize::from(unacked.envelope.priority().min(9)) / 3);
                args.text(unacked.envelope.write().text());
                if self.ask("give_back", args)?.num::<u8>().map_err(fault)? == 0 {
                    continue;
                }
                tracing::warn!(
                    "queue {queue}: a message that another worker had for longer than visibility_timeout \
                     ({timeout} s) goes back to its queue (delivery tag {tag})"
                );
                back += 1;
            }
            past += seen - back;
            if seen < MOST {
                return Ok(());
            }
        }
    }
}
