//! Whether nobody but root can write a file that root is about to obey (the rule of sudo and cron).

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Write permission of group and others.
const SHARED_WRITE: u32 = 0o022;
/// In a directory with this bit nobody can replace a file of somebody else (`/tmp`).
const STICKY: u32 = 0o1000;

/// Why a config file is not safe for root to read: the file or a directory above it belongs to somebody
/// else, or others may write it. Judged on the real path. Absent: it is safe, or it is not there.
#[must_use]
pub fn ownership_fault(path: &Path) -> Option<String> {
    fault(path, 0, Path::new("/"))
}

/// The same for another owner than root, up to and without `top` (root's own things are always trusted).
fn fault(path: &Path, owner: u32, top: &Path) -> Option<String> {
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => return Some(format!("cannot be looked at: {e}")),
    };
    for (depth, part) in real.ancestors().take_while(|p| *p != top || *p == Path::new("/")).enumerate() {
        let name = part.display();
        let meta = match part.symlink_metadata() {
            Ok(meta) => meta,
            Err(e) => return Some(format!("{name} cannot be looked at: {e}")),
        };
        if meta.uid() != owner && meta.uid() != 0 {
            return Some(format!("{name} belongs to the user with uid {}, not to root", meta.uid()));
        }
        let sticky_directory = depth > 0 && meta.mode() & STICKY != 0;
        if meta.mode() & SHARED_WRITE != 0 && !sticky_directory {
            return Some(format!(
                "{name} can be written by others than its owner (mode {:04o})",
                meta.mode() & 0o7777
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_can_write_is_refused_wherever_on_the_path() {
        let top = tempfile::tempdir().unwrap();
        let me = top.path().metadata().unwrap().uid();
        let dir = top.path().join("etc");
        create_dir(&dir).unwrap();
        let file = dir.join("taskd.toml");
        write(&file, "").unwrap();
        let judge = |p: &Path| fault(p, me, &top.path().canonicalize().unwrap());
        mode(&dir, 0o755);
        mode(&file, 0o644);
        assert_eq!(judge(&file), None);
        for bad in [0o664, 0o646, 0o666] {
            mode(&file, bad);
            assert!(judge(&file).unwrap().contains("taskd.toml can be written by others"), "{bad:o}");
        }
        mode(&file, 0o600);
        mode(&dir, 0o777);
        assert!(judge(&file).unwrap().contains("etc can be written"));
        mode(&dir, 0o1777);
        assert_eq!(judge(&file), None, "nobody can replace it in a sticky directory");
        // A link is judged by what it leads to.
        mode(&dir, 0o755);
        mode(&file, 0o666);
        let link = top.path().join("link.toml");
        symlink(&file, &link).unwrap();
        assert!(judge(&link).is_some());
        assert_eq!(judge(&top.path().join("missing")), None);
    }

    #[test]
    fn a_foreign_owner_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let me = file.path().metadata().unwrap().uid();
        // Only root can give files away; others see their own file as foreign to root.
        if me == 0 {
            std::os::unix::fs::chown(file.path(), Some(12_345), None).unwrap();
        }
        assert!(ownership_fault(file.path()).unwrap().contains("not to root"));
    }
}
