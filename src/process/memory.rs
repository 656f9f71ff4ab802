//! How much memory a process and everything below it use, where no control group counts it.

use std::fs;

use super::descendants;

/// Of so many processes the proportional share is read (the kernel walks their page tables for it); of what is
/// beyond, the resident size.
const EXACT: usize = 256;

/// Processes that are measured together.
#[derive(Clone, Debug)]
pub struct Family {
    members: Vec<i32>,
    /// Of so many the proportional share is read.
    exact: usize,
}

impl Family {
    /// A process and all its descendants as they are now; those that come and go meanwhile may be missed.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let mut members = vec![pid.cast_signed()];
        members.extend(descendants::below(pid.cast_signed()));
        Self { members, exact: EXACT }
    }

    /// All descendants of this process, each of which is measured exactly.
    #[must_use]
    pub fn below_this_one() -> Self {
        Self { members: descendants::descendants(), exact: usize::MAX }
    }

    /// Memory in bytes: what is shared counts for each process by its share (PSS), where that can be read. One that
    /// ended since it was found counts nothing.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let exact =
            |pid: &i32| descendants::proportional(*pid).unwrap_or_else(|| descendants::resident(*pid));
        let (first, rest) = self.members.split_at(self.exact.min(self.members.len()));
        first.iter().map(exact).chain(rest.iter().map(|pid| descendants::resident(*pid))).sum()
    }

    /// What it uses, where that is above so many bytes. Resident sizes count too much, but cost a hundredth: where
    /// they are below, the shares are, too.
    ///
    /// Looked at one after the other, those that share may each be seen alone while others end: what counts is the
    /// smaller one of two looks.
    #[must_use]
    pub fn beyond(&self, bytes: u64) -> Option<u64> {
        let resident: u64 = self.members.iter().map(|pid| descendants::resident(*pid)).sum();
        if resident <= bytes {
            return None;
        }
        let first = self.memory();
        let found = if first > bytes { first.min(self.memory()) } else { first };
        (found > bytes).then_some(found)
    }

    /// Processes and threads.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.members.iter().filter_map(|pid| threads(*pid)).sum()
    }
}

fn threads(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything, the 20th field is the 18th.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(17)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_family_is_measured_with_all_below_it() {
        // A shell, its child, and that one's child, each of which waits for the next.
        let script = "sh -c 'sleep 600 & echo up; wait' & wait";
        let mut parent = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let family = Family::of(parent.id());
        let (memory, tasks) = (family.memory(), family.tasks());
        let alone: Vec<u64> =
            family.members.iter().map(|pid| descendants::proportional(*pid).unwrap()).collect();
        let resident: u64 = family.members.iter().map(|pid| descendants::resident(*pid)).sum();
        for pid in &family.members {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
        }
        parent.wait().unwrap();
        assert_eq!((family.members.len(), tasks), (3, 3));
        assert!(memory > alone[0] && memory <= resident, "{memory} of {alone:?}, {resident}");
        assert!(family.beyond(resident).is_none());
    }

    #[test]
    fn growth_shows_and_a_process_that_is_gone_counts_nothing() {
        let own = Family { members: vec![std::process::id().cast_signed()], exact: EXACT };
        let before = own.memory();
        let held = vec![1_u8; 32 << 20];
        let after = own.memory();
        assert!(after >= before + (24 << 20), "{before} {after} {}", held.len());
        assert!(own.beyond(24 << 20).is_some());
        let nobody = Family { members: vec![0x3fff_fffe], exact: EXACT };
        assert_eq!((nobody.memory(), nobody.tasks(), nobody.beyond(0).is_some()), (0, 0, false));
    }
}
