//! Opening: from a directory to a store that may be trusted.

use std::path::Path;

use rusqlite::Connection;

use super::ledger::Ledger;
use super::schema;
use super::shelf::Shelf;
use crate::link::sqlite::state_dir::{HEADROOM, Left, StateDir};
use crate::link::sqlite::{self as link, OpenError};
use crate::model::workflow::Fallout;

/// Opens the store of a directory for the first time in this process.
pub(super) fn open(dir: &Path) -> Result<(StateDir, Shelf), OpenError> {
    let dir = StateDir::open(dir)?;
    let left = dir.look()?;
    let file = dir.file();
    let shelf = shelf(&dir, |c| {
        // A kernel that lives on kept every write of a killed process: only after a crash of the machine
        // can a page be torn, and only then is the whole file read.
        if left == Left::Crashed {
            let found: String = c
                .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
                .map_err(|e| OpenError::of_sqlite(&file, &e))?;
            if found != "ok" {
                return Err(OpenError::Corrupt { file: file.clone(), detail: found });
            }
        }
        Ok(())
    })?;
    // Without it the store works as well; only a full disk is harder on it.
    let _ = dir.take_reserve(HEADROOM);
    Ok((dir, shelf))
}

/// Opens the file, at the start and after a fault.
pub(super) fn shelf(
    dir: &StateDir,
    check: impl FnOnce(&Connection) -> Result<(), OpenError>,
) -> Result<Shelf, OpenError> {
    let file = dir.file();
    let failed = |e: rusqlite::Error| OpenError::of_sqlite(&file, &e);
    let mut c = link::writer(&file)?;
    check(&c)?;
    let fresh = uuid::Uuid::new_v4().to_string();
    let id = schema::prepare(&mut c, &file, &fresh)?;
    match dir.id()? {
        Some(known) if known != id => {
            return Err(OpenError::Replaced { file, marker: dir.marker() });
        }
        _ => dir.opened(&id)?,
    }
    // Whatever an earlier process or handle committed without an fsync, or with one that failed, is on
    // the disk before anybody is told that it is known.
    link::checkpoint(&c).map_err(failed)?;
    super::lanes::mend(&c).map_err(failed)?;
    let ledger = Ledger::load(&c).map_err(failed)?;
    Ok(Shelf {
        c,
        ledger,
        bytes: 0,
        fallout: Fallout::default(),
        released: Default::default(),
        changes: Default::default(),
    })
}
