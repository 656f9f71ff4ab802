//! What `ps` and `systemctl status` show of a process: its argument area, overwritten in place.
//!
//! Children are started with a padding argument ([`padding`]) so that there is room; the environment behind
//! it is left alone, because the next launcher finds what is left of this one by it.
#![allow(unsafe_code)]

use std::io;
use std::sync::{Mutex, OnceLock};

/// Bytes of room that a padding argument makes.
const ROOM: usize = 256;

static AREA: OnceLock<Mutex<Area>> = OnceLock::new();

/// The writable argument bytes; the last one stays NUL, or the kernel would go on into the environment.
struct Area {
    start: usize,
    length: usize,
    /// How much of it is not NUL now.
    used: usize,
}

/// An argument that does nothing but make room for a title.
#[must_use]
pub fn padding() -> String {
    " ".repeat(ROOM)
}

/// Finds the argument area. To be called once, after the arguments were read for the last time: they are
/// overwritten by the first [`set`]. Without it (or when it fails) [`set`] does nothing.
///
/// # Errors
/// When `/proc/self/stat` cannot be read or names no area.
pub fn init() -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (start, end) = area(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let length = end - start - 1;
    // The arguments themselves count as a title until the first one is set.
    let _ = AREA.set(Mutex::new(Area { start, length, used: length }));
    Ok(())
}

/// Shows this text. Cut where there is no more room; control characters become spaces.
pub fn set(title: &str) {
    let Some(area) = AREA.get() else { return };
    let mut area = area.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let text = cut(title, area.length);
    // SAFETY: start..start+length is this process's own argument area, mapped readable and writable for
    // its whole life, below the NUL that ends it. Rust keeps no reference into it (`std::env::args` copies
    // at each call), and the lock makes this the only writer.
    let bytes = unsafe { std::slice::from_raw_parts_mut(area.start as *mut u8, area.length) };
    let tail = area.used.max(text.len());
    for (byte, new) in bytes.iter_mut().zip(text.bytes()) {
        *byte = if new < b' ' { b' ' } else { new };
    }
    if let Some(rest) = bytes.get_mut(text.len()..tail) {
        rest.fill(0);
    }
    area.used = text.len();
}

/// Shows this text where all of it fits; a process that was started without a padding keeps its own
/// arguments otherwise, which say more than half a title.
pub fn set_whole(title: &str) {
    let fits = |area: &Mutex<Area>| {
        area.lock().unwrap_or_else(std::sync::PoisonError::into_inner).length >= title.len()
    };
    if AREA.get().is_some_and(fits) {
        set(title);
    }
}

/// The first bytes of a text that fit, ended at a character.
fn cut(text: &str, room: usize) -> &str {
    let mut end = text.len().min(room);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Fields 48 and 49 of `/proc/PID/stat` (proc(5)): where the arguments start and end. The name in field 2
/// may hold anything, so counting starts behind its closing parenthesis.
fn area(stat: &str) -> Option<(usize, usize)> {
    let rest = stat.get(stat.rfind(')')? + 1..)?;
    let mut fields = rest.split_ascii_whitespace().skip(45);
    let start: usize = fields.next()?.parse().ok()?;
    let end: usize = fields.next()?.parse().ok()?;
    (start > 0 && end > start + 1).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_found_behind_any_name() {
        let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("1 (a) b (c) {}", fields.join(" "));
        assert_eq!(area(&stat), None, "48 and 49 leave no room between them");
        let stat = stat.replace(" 49 ", " 4900 ");
        assert_eq!(area(&stat), Some((48, 4900)));
        assert_eq!(area("1 (a) S 1"), None);
        assert_eq!(area(""), None);
    }

    #[test]
    fn the_area_is_where_the_arguments_are() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (start, end) = area(&stat).unwrap();
        let shown = std::fs::read("/proc/self/cmdline").unwrap();
        assert_eq!(end - start, shown.len());
    }

    #[test]
    fn a_title_is_cut_at_a_character() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 3), "");
    }
}
