//! Where the files of a unit are: a path, or a name that is looked up as systemd does, with its drop-ins.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Pair, Unit, service_of};
use crate::cli::output::Failure;

/// Where units are, the first one wins; below `--user` another list holds.
const PLACES: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "lib/systemd/system",
    "usr/lib/systemd/system",
];

/// Largest unit file that is read.
const LARGEST: u64 = 1 << 20;

/// Reads the timer that is meant, and its service.
///
/// # Errors
/// The timer is nowhere or cannot be read; neither can a file that `service` names.
pub fn pair(root: &Path, wanted: &str, service: Option<&Path>) -> Result<Pair, Failure> {
    let (timer_name, timer, beside) = if wanted.contains('/') {
        let path = PathBuf::from(wanted);
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let mut unit = Unit::default();
        unit.read(&text(&path)?);
        (name, unit, path.parent().map(Path::to_owned))
    } else {
        let name = if wanted.ends_with(".timer") { wanted.to_owned() } else { format!("{wanted}.timer") };
        let Some(unit) = by_name(root, &name)? else {
            let failure = Failure::no_input(format!("there is no unit {name} in {}", listed()));
            return Err(failure.hint("a file is named by a path with a slash, as ./backup.timer"));
        };
        (name, unit, None)
    };
    let service_name = service_of(&timer_name, &timer);
    let found = match service {
        Some(path) => {
            let mut unit = Unit::default();
            unit.read(&text(path)?);
            Some(unit)
        }
        None => match beside.as_deref().and_then(|dir| in_directory(dir, &service_name)) {
            Some(path) => {
                let mut unit = Unit::default();
                unit.read(&text(&path)?);
                Some(unit)
            }
            None => by_name(root, &service_name)?,
        },
    };
    let of_user = beside.is_some_and(|dir| {
        let dir = dir.to_string_lossy().into_owned();
        dir.contains("/systemd/user") || dir.ends_with("systemd/user")
    });
    Ok(Pair { timer_name, timer, service_name, service: found, of_user })
}

fn listed() -> String {
    PLACES.map(|p| format!("/{p}")).join(", ")
}

/// The names that a unit's file can have: its own, then that of its template.
fn names(name: &str) -> Vec<String> {
    let mut out = vec![name.to_owned()];
    if let Some((prefix, rest)) = name.split_once('@')
        && let Some((_, suffix)) = rest.rsplit_once('.')
    {
        out.push(format!("{prefix}@.{suffix}"));
    }
    out
}

fn in_directory(dir: &Path, name: &str) -> Option<PathBuf> {
    names(name).into_iter().map(|n| dir.join(n)).find(|p| p.is_file())
}

/// A unit of the machine: its file, then its drop-ins by name, those of an earlier place hiding later ones.
fn by_name(root: &Path, name: &str) -> Result<Option<Unit>, Failure> {
    if name.contains('/') || name.is_empty() {
        return Ok(None);
    }
    let places: Vec<PathBuf> = PLACES.iter().map(|p| root.join(p)).collect();
    let Some(file) = places.iter().find_map(|dir| in_directory(dir, name)) else { return Ok(None) };
    let mut unit = Unit::default();
    unit.read(&text(&file)?);
    let mut drop_ins: Vec<(String, PathBuf)> = Vec::new();
    for place in &places {
        for name in names(name) {
            let Ok(entries) = fs::read_dir(place.join(format!("{name}.d"))) else { continue };
            for path in entries.filter_map(Result::ok).map(|e| e.path()) {
                let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                if name.ends_with(".conf") && drop_ins.iter().all(|(n, _)| *n != name) {
                    drop_ins.push((name, path));
                }
            }
        }
    }
    drop_ins.sort();
    for (_, path) in drop_ins {
        unit.read(&text(&path)?);
    }
    Ok(Some(unit))
}

fn text(path: &Path) -> Result<String, Failure> {
    let fail =
        |why: &dyn std::fmt::Display| Failure::no_input(format!("cannot read {}: {why}", path.display()));
    let known = fs::metadata(path).map_err(|e| fail(&e))?;
    if !known.is_file() && !known.file_type().is_symlink() {
        return Err(fail(&"it is no file"));
    }
    if known.len() > LARGEST {
        return Err(fail(&"it is larger than 1 MiB"));
    }
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|e| fail(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn a_name_is_looked_up_with_its_drop_ins() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(root, "lib/systemd/system/a.timer", "[Timer]\nOnCalendar=daily\n");
        put(root, "etc/systemd/system/a.timer.d/10.conf", "[Timer]\nOnCalendar=\nOnCalendar=hourly\n");
        put(root, "lib/systemd/system/a.timer.d/10.conf", "[Timer]\nOnCalendar=weekly\n");
        put(root, "lib/systemd/system/a.service", "[Service]\nExecStart=/a\n");
        let pair = pair(root, "a", None).unwrap();
        let times: Vec<&str> = pair.timer.all("Timer", "OnCalendar").map(|s| s.value.as_str()).collect();
        assert_eq!(times, ["hourly"]);
        assert!(pair.service.is_some());
    }

    #[test]
    fn templates_paths_and_other_services() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(root, "usr/lib/systemd/system/b@.timer", "[Timer]\nOnCalendar=daily\nUnit=c@%i.service\n");
        put(root, "etc/systemd/system/c@.service", "[Service]\nExecStart=/c %i\n");
        let found = pair(root, "b@x.timer", None).unwrap();
        assert_eq!(found.service_name, "c@x.service");
        assert!(found.service.is_some());
        put(root, "here/d.timer", "[Timer]\n");
        put(root, "here/e.service", "[Service]\nExecStart=/e\n");
        let path = root.join("here/d.timer").display().to_string();
        assert!(pair(root, &path, None).unwrap().service.is_none());
        assert!(pair(root, &path, Some(&root.join("here/e.service"))).unwrap().service.is_some());
        assert_eq!(pair(root, "nothing", None).unwrap_err().code(), 66);
        assert_eq!(pair(root, "./nothing.timer", None).unwrap_err().code(), 66);
    }
}
