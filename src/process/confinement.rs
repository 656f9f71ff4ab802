//! AppArmor: the daemon goes under a profile of its own before it takes anything in (apparmor(7),
//! aa_change_profile(2)). Launcher, runners and tasks have none: tasks are whatever the config declares, and a profile
//! that they inherited would forbid some of them what their user may do.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::config::DEFAULT_STATE_DIR;

/// The profile, as `packaging/apparmor/taskd-daemon` names it.
pub const PROFILE: &str = "taskd-daemon";

/// Whether the kernel enforces AppArmor.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

/// Where a process names its profile since Linux 5.8, and where before (then shared with other security modules).
const CURRENT: [&str; 2] = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];

/// Goes under the profile, and says in a clause how this process is confined now; nothing where the kernel has no
/// AppArmor. Must be called by the only thread of a process, before it gives up root: a process that is not dumpable
/// cannot name its profile any more.
#[must_use]
pub fn enter(state_dir: &Path) -> Option<String> {
    if !fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y')) {
        return None;
    }
    Some(enter_by(&CURRENT.map(Path::new), state_dir))
}

fn enter_by(files: &[&Path], state_dir: &Path) -> String {
    // The profile knows no other. Else the daemon could not read its own store, and "permission denied" would not say by whom.
    if state_dir != Path::new(DEFAULT_STATE_DIR) {
        let dir = state_dir.display();
        return format!(
            "no: the AppArmor profile {PROFILE} knows {DEFAULT_STATE_DIR} only, and `state_dir` is {dir}"
        );
    }
    let Some(file) = files.iter().find(|file| file.exists()) else {
        return "no: /proc/self/attr is not there".to_owned();
    };
    match fs::write(file, format!("changeprofile {PROFILE}")) {
        Ok(()) => match fs::read_to_string(file) {
            Ok(label) => format!("AppArmor profile {}", label.trim_end_matches(['\n', '\0'])),
            Err(e) => format!("AppArmor profile {PROFILE} (its mode cannot be read: {e})"),
        },
        Err(e) => refusal(&e),
    }
}

fn refusal(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => format!("no: AppArmor has not loaded the profile {PROFILE}"),
        _ => format!("no: AppArmor refuses the profile {PROFILE}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_the_kernel_for_the_profile_and_tells_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("current");
        fs::write(&file, "unconfined\n").unwrap();
        let said = enter_by(&[Path::new("/nonexistent"), &file], Path::new(DEFAULT_STATE_DIR));
        assert_eq!(fs::read_to_string(&file).unwrap(), "changeprofile taskd-daemon");
        assert_eq!(said, "AppArmor profile changeprofile taskd-daemon");
    }

    #[test]
    fn a_store_that_the_profile_does_not_know_stays_within_reach() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("current");
        fs::write(&file, "").unwrap();
        let said = enter_by(&[&file], Path::new("/srv/taskd"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "", "it asked all the same");
        assert!(said.contains("`state_dir` is /srv/taskd"), "{said}");
    }

    #[test]
    fn a_profile_that_is_not_loaded_is_named() {
        assert!(refusal(&ErrorKind::NotFound.into()).contains("has not loaded"));
        assert!(refusal(&ErrorKind::PermissionDenied.into()).contains("refuses"));
    }

    #[test]
    fn the_shipped_profile_is_the_one_that_is_entered_and_knows_the_state_directory() {
        let text =
            fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/apparmor/taskd-daemon"))
                .unwrap();
        assert!(text.contains(&format!("\nprofile {PROFILE} {{\n")));
        assert!(text.contains(&format!("  {DEFAULT_STATE_DIR}/** rwk,\n")));
    }
}
