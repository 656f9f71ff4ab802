//! How much memory a process and everything below it use, where no control group counts it.

use std::fs;

use super::descendants;

/// Of so many processes the proportional share is read (the kernel walks their page tables for it); of what is
/// beyond, the resident size.
const EXACT: usize = 256;

/// Bytes of a page.
fn page() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(4096)
}

/// A process and all its descendants.
#[derive(Clone, Debug)]
pub struct Family {
    members: Vec<i32>,
}

impl Family {
    /// As it is now; processes that come and go meanwhile may be missed.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let mut members = vec![pid.cast_signed()];
        members.extend(descendants::below(pid.cast_signed()));
        Self { members }
    }

    /// Memory in bytes: what is shared counts for each process by its share (PSS), where that can be read.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let exact = self.members.iter().take(EXACT).map(|pid| share(*pid).or_else(|| resident(*pid)));
        let rest = self.members.iter().skip(EXACT).map(|pid| resident(*pid));
        exact.chain(rest).map(Option::unwrap_or_default).sum()
    }

    /// Whether that is above so many bytes. Resident sizes count too much, but are cheap to read: where they
    /// are below, the shares are, too.
    #[must_use]
    pub fn is_above(&self, bytes: u64) -> bool {
        self.members.iter().filter_map(|pid| resident(*pid)).sum::<u64>() > bytes && self.memory() > bytes
    }

    /// Processes and threads.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.members.iter().filter_map(|pid| threads(*pid)).sum()
    }
}

/// The proportional share, in bytes.
fn share(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib =
        text.lines().find_map(|l| l.strip_prefix("Pss:"))?.trim().strip_suffix("kB")?.trim().parse::<u64>();
    kib.ok()?.checked_mul(1024)
}

/// The resident size, in bytes.
fn resident(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(page())
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
        let alone: Vec<u64> = family.members.iter().map(|pid| share(*pid).unwrap()).collect();
        let resident: u64 = family.members.iter().map(|pid| resident(*pid).unwrap()).sum();
        for pid in &family.members {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
        }
        parent.wait().unwrap();
        assert_eq!((family.members.len(), tasks), (3, 3));
        assert!(memory > alone[0] && memory <= resident, "{memory} of {alone:?}, {resident}");
        assert!(!family.is_above(resident));
    }

    #[test]
    fn growth_shows_and_a_process_that_is_gone_counts_nothing() {
        let own = Family { members: vec![std::process::id().cast_signed()] };
        let before = own.memory();
        let held = vec![1_u8; 32 << 20];
        let after = own.memory();
        assert!(after >= before + (24 << 20), "{before} {after} {}", held.len());
        assert!(own.is_above(24 << 20));
        let nobody = Family { members: vec![0x3fff_fffe] };
        assert_eq!((nobody.memory(), nobody.tasks(), nobody.is_above(0)), (0, 0, false));
    }
}
