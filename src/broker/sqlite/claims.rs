//! Who holds which key: a row of `claim` for each message that claims one and is not final, under the number of
//! its row in `live`. What ends a message's life or attempt ends its hold in the same transaction.

use rusqlite::OptionalExtension;

use super::ledger::idle_class;
use super::row::{Key, state};
use super::shelf::{Shelf, Stop};
use crate::broker::admission::{self, Admission, Holder, Judged, Known, Stage, Verdict};
use crate::broker::rules;
use crate::model::message::{Message, Record};
use crate::model::name::MessageId;
use crate::model::op::{Fault, Published, Reply};
use crate::model::state::State;
use crate::model::time::Wall;
use crate::model::unique::{Claim, Holds};

/// A way of holding as it stands in a row; never changed.
const fn code(holds: Holds) -> i64 {
    match holds {
        Holds::Queued => 0,
        Holds::Running => 1,
        Holds::Both => 2,
    }
}

/// The store as an admission sees it.
struct Look<'a> {
    shelf: &'a Shelf,
    now: Wall,
}

impl Known for Look<'_> {
    type Error = Stop;

    fn is_known(&self, id: &MessageId) -> Result<bool, Stop> {
        Ok(self.shelf.is_known(id)?)
    }

    fn is_workflow(&self, id: &MessageId) -> Result<bool, Stop> {
        Ok(self.shelf.flow_head(id)?.is_some())
    }

    fn holder(&self, key: &str) -> Result<Option<Holder>, Stop> {
        self.shelf.holder(key, self.now)
    }

    fn length(&self, queue: &str) -> u64 {
        self.shelf.ledger.number(queue).map_or(0, |no| self.shelf.ledger.length(no))
    }
}

impl Shelf {
    /// Publishes what is unique, or bounded by its queue: everything is decided before anything is written.
    pub(super) fn publish_admitted(
        &mut self,
        messages: &[Message],
        max_length: &[Option<u64>],
        now: Wall,
    ) -> Result<Reply, Stop> {
        let verdicts = match self.admitted(messages, max_length, now)? {
            Ok(verdicts) => verdicts,
            Err(reply) => return Ok(reply),
        };
        let mut replies = Vec::with_capacity(messages.len());
        for (m, verdict) in messages.iter().zip(verdicts) {
            replies.push(match self.not_stored(&m.id, verdict)? {
                Ok(published) => published,
                Err(ends) => {
                    self.store_replacing(m, ends.as_ref(), now)?;
                    admission::stored(ends)
                }
            });
        }
        Ok(Reply::Published(replies))
    }

    /// What becomes of each message, or the answer where nothing is stored.
    pub(super) fn admitted(
        &self,
        messages: &[Message],
        max_length: &[Option<u64>],
        now: Wall,
    ) -> Result<Result<Vec<Verdict>, Reply>, Stop> {
        Ok(match admission::admit(messages, max_length, &Look { shelf: self, now })? {
            Admission::Each(verdicts) => Ok(verdicts),
            Admission::Nothing(Reply::Taken { of, holder, .. }) => {
                let record = self.record(&holder)?.map(Box::new);
                Err(Reply::Taken { of, holder, record })
            }
            Admission::Nothing(reply) => Err(reply),
        })
    }

    /// The answer for a message that is not stored; of one that is, whom it ends.
    pub(super) fn not_stored(
        &self,
        id: &MessageId,
        verdict: Verdict,
    ) -> Result<Result<Published, Option<MessageId>>, Stop> {
        Ok(match verdict {
            Verdict::Known => Ok(Published::Known(self.there(id)?)),
            Verdict::Workflow => {
                let vanished = || Fault::Again(format!("{id} was there and is not; try again"));
                Ok(Published::Workflow(Box::new(self.flow_head(id)?.ok_or_else(vanished)?)))
            }
            Verdict::Held(holder) => Ok(Published::Held(self.there(&holder)?)),
            Verdict::Stored(ends) => Err(ends),
        })
    }

    /// The record of an id that is known.
    pub(super) fn there(&self, id: &MessageId) -> Result<Box<Record>, Stop> {
        let vanished = || Fault::Again(format!("{id} was there and is not; try again"));
        Ok(Box::new(self.record(id)?.ok_or_else(vanished)?))
    }

    fn store_replacing(&mut self, m: &Message, ends: Option<&MessageId>, now: Wall) -> Result<bool, Stop> {
        if let Some((seq, queue, class)) = ends.map(|id| self.open(id)).transpose()?.flatten() {
            self.ledger.leave(queue, class);
            self.finish(seq, State::Revoked, (&rules::replaced(&m.id), false), now, None, false)?;
        }
        let (state, due) = rules::first_state(m, now);
        self.begin(m, state, due, now, 0, Some(now))
    }

    fn judged(&self, claim: &Claim, now: Wall) -> Result<Judged, Stop> {
        Ok(admission::judge(claim, self.holder(&claim.key, now)?.as_ref()))
    }

    /// Who keeps a message from being stored.
    pub(super) fn held_by(&self, m: &Message, now: Wall) -> Result<Option<MessageId>, Stop> {
        let Some(claim) = &m.unique else { return Ok(None) };
        Ok(match self.judged(claim, now)? {
            Judged::Free | Judged::Replaces(_) => None,
            Judged::Held(holder) | Judged::Leased(holder) => Some(holder),
        })
    }

    /// Stores a message that nobody waits for an answer about; false: its id is known, nothing changed. Where
    /// another message holds its key it is stored as ended, so that its id tells what became of it.
    pub(super) fn store(&mut self, m: &Message, now: Wall) -> Result<bool, Stop> {
        let Some(claim) = &m.unique else {
            if self.is_done(&Key::of(&m.id))? {
                return Ok(false);
            }
            let (state, due) = rules::first_state(m, now);
            return self.begin(m, state, due, now, 0, None);
        };
        if self.is_known(&m.id)? {
            return Ok(false);
        }
        match self.judged(claim, now)? {
            Judged::Free => self.store_replacing(m, None, now),
            Judged::Replaces(id) => self.store_replacing(m, Some(&id), now),
            Judged::Held(holder) | Judged::Leased(holder) => {
                self.begin(m, State::Waiting, None, now, 0, None)?;
                if let Some((seq, queue, class)) = self.open(&m.id)? {
                    self.ledger.leave(queue, class);
                    self.finish(seq, State::Revoked, (&rules::key_held(&holder), false), now, None, false)?;
                }
                Ok(true)
            }
        }
    }

    /// Takes a message of another store over, with the attempts it has had; false: its id is known. It was accepted
    /// once, so a key that is held keeps it from a claim, not from its life.
    pub(super) fn take_over(&mut self, m: &Message, now: Wall, attempt: u32) -> Result<bool, Stop> {
        if self.is_known(&m.id)? || self.flow_head(&m.id)?.is_some() {
            return Ok(false);
        }
        let free = match &m.unique {
            Some(claim) => {
                rules::held_until(claim, m.enqueued).is_none_or(|until| until > now)
                    && self.holder(&claim.key, now)?.is_none()
            }
            None => false,
        };
        let (state, due) = rules::first_state(m, now);
        self.begin(m, state, due, now, attempt, free.then_some(m.enqueued))
    }

    /// A row of its own for this message; with `claims` it claims its key from that time on. False: its id is there.
    pub(super) fn begin(
        &mut self,
        m: &Message,
        state: State,
        due: Option<Wall>,
        now: Wall,
        attempt: u32,
        claims: Option<Wall>,
    ) -> Result<bool, Stop> {
        let new = self.born(m, state, due, now, attempt)?;
        if let (true, Some(claim), Some(from)) = (new, &m.unique, claims) {
            self.claim(claim, from, now)?;
        }
        Ok(new)
    }

    /// The newest row claims this key.
    fn claim(&mut self, claim: &Claim, from: Wall, now: Wall) -> rusqlite::Result<()> {
        let late = self
            .c
            .prepare_cached("DELETE FROM claim WHERE key = ?1 AND held = 1 AND until <= ?2")?
            .execute((&claim.key, now.0))?;
        self.c
            .prepare_cached("INSERT INTO claim(seq, key, holds, held, until) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute((
                self.ledger.f.seq,
                &claim.key,
                code(claim.holds),
                claim.holds != Holds::Running,
                rules::held_until(claim, from).map(|until| until.0),
            ))?;
        self.ledger.f.claims = (self.ledger.f.claims + 1).saturating_sub(late as u64);
        Ok(())
    }

    /// Who holds this key: the earliest.
    fn holder(&self, key: &str, now: Wall) -> Result<Option<Holder>, Stop> {
        if self.ledger.f.claims == 0 {
            return Ok(None);
        }
        let seq: Option<i64> = self
            .c
            .prepare_cached(
                "SELECT seq FROM claim WHERE key = ?1 AND held = 1 AND (until IS NULL OR until > ?2) \
                 ORDER BY seq LIMIT 1",
            )?
            .query_row((key, now.0), |row| row.get(0))
            .optional()?;
        let Some(seq) = seq else { return Ok(None) };
        let found = self
            .c
            .prepare_cached(
                "SELECT id, queue, state, token IS NOT NULL, unknown IS NOT NULL FROM live WHERE seq = ?1",
            )?
            .query_row([seq], |row| {
                let id = super::row::id_of(row.get_ref(0)?);
                Ok((id, super::ledger::index(row.get(1)?), row.get::<_, i64>(2)?, row.get(3)?, row.get(4)?))
            })
            .optional()?;
        let Some((id, queue, code, leased, unknown)) = found else { return Ok(None) };
        let id = id.map_err(|why| Fault::Poison(format!("row {seq}: {why}")))?;
        let stage = match (state(code), leased) {
            (Some(State::Running), _) => Stage::Running,
            (_, true) => Stage::Leased,
            (of, false) => {
                let class = idle_class(of.unwrap_or(State::Waiting), unknown);
                Stage::Open { counts: class != super::ledger::Class::Unknown }
            }
        };
        Ok(Some(Holder { id, queue: self.ledger.name(queue).to_owned(), stage }))
    }

    /// Who keeps a message from a new life.
    pub(super) fn in_the_way(&self, message: &Message, now: Wall) -> Result<Option<MessageId>, Stop> {
        let Some(claim) = &message.unique else { return Ok(None) };
        Ok(rules::in_the_way(claim, self.holder(&claim.key, now)?.as_ref()))
    }

    /// An attempt of this row began.
    pub(super) fn claim_runs(&mut self, seq: i64) -> rusqlite::Result<()> {
        if self.ledger.f.claims > 0 {
            self.claim_begun(seq)?;
            self.c
                .prepare_cached("UPDATE claim SET held = 1 WHERE seq = ?1 AND holds = 1")?
                .execute([seq])?;
        }
        Ok(())
    }

    /// This row runs no more; `begun`: its first attempt is over.
    pub(super) fn claim_rests(&mut self, seq: i64, begun: bool) -> rusqlite::Result<()> {
        if self.ledger.f.claims > 0 {
            if begun {
                self.claim_begun(seq)?;
            }
            self.c
                .prepare_cached("UPDATE claim SET held = 0 WHERE seq = ?1 AND holds = 1")?
                .execute([seq])?;
        }
        Ok(())
    }

    /// What is held until the first start is free.
    fn claim_begun(&mut self, seq: i64) -> rusqlite::Result<()> {
        let freed =
            self.c.prepare_cached("DELETE FROM claim WHERE seq = ?1 AND holds = 0")?.execute([seq])?;
        self.ledger.f.claims = self.ledger.f.claims.saturating_sub(freed as u64);
        Ok(())
    }

    /// The life of this row is over.
    pub(super) fn claim_ends(&mut self, seq: i64) -> rusqlite::Result<()> {
        if self.ledger.f.claims > 0 {
            let freed = self.c.prepare_cached("DELETE FROM claim WHERE seq = ?1")?.execute([seq])?;
            self.ledger.f.claims = self.ledger.f.claims.saturating_sub(freed as u64);
        }
        Ok(())
    }
}

/// What is wrong with the claims: one whose message is gone, two that hold one key.
pub(super) fn faults(c: &rusqlite::Connection) -> rusqlite::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut gone = c.prepare(
        "SELECT claim.seq, key FROM claim LEFT JOIN live ON live.seq = claim.seq WHERE live.seq IS NULL LIMIT 100",
    )?;
    let mut rows = gone.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, key): (i64, String) = (row.get(0)?, row.get(1)?);
        found.push(format!("row {seq}: its message is gone and still claims the key {key:?}"));
    }
    // What holds a key while it runs is kept apart by whoever starts it, not by this table.
    let mut twice = c.prepare(
        "SELECT key, count(*) FROM claim WHERE held = 1 AND holds <> 1 AND until IS NULL \
         GROUP BY key HAVING count(*) > 1 LIMIT 100",
    )?;
    let mut rows = twice.query([])?;
    while let Some(row) = rows.next()? {
        let (key, n): (String, i64) = (row.get(0)?, row.get(1)?);
        found.push(format!("{n} messages hold the key {key:?} at once"));
    }
    Ok(found)
}
