//! taskd's Python module as a script: what the Python of a Celery app's virtualenv runs.
//!
//! The program carries the module's sources, so nothing of taskd has to be installed in a virtualenv, and what is
//! installed there cannot be of another version. `packaging/python/embedded.py` says how the script finds them.

use std::io;
use std::os::fd::OwnedFd;

use serde_json::{Map, Value};

use super::memfd;

/// The descriptor at which the script is, in a process that runs it.
pub const SCRIPT_FD: i32 = 4;

const BOOT: &str = include_str!("../../packaging/python/embedded.py");

/// The module's files.
const SOURCES: [(&str, &str); 10] = [
    ("__init__", include_str!("../../packaging/python/taskd_worker/__init__.py")),
    ("__main__", include_str!("../../packaging/python/taskd_worker/__main__.py")),
    ("_celery", include_str!("../../packaging/python/taskd_worker/_celery.py")),
    ("_follow", include_str!("../../packaging/python/taskd_worker/_follow.py")),
    ("_link", include_str!("../../packaging/python/taskd_worker/_link.py")),
    ("_output", include_str!("../../packaging/python/taskd_worker/_output.py")),
    ("_preload", include_str!("../../packaging/python/taskd_worker/_preload.py")),
    ("_run", include_str!("../../packaging/python/taskd_worker/_run.py")),
    ("_tasks", include_str!("../../packaging/python/taskd_worker/_tasks.py")),
    ("_worker", include_str!("../../packaging/python/taskd_worker/_worker.py")),
];

/// The script in a sealed memory file.
///
/// # Errors
/// No memory, no descriptors.
pub fn script() -> io::Result<OwnedFd> {
    memfd::write_sealed("taskd-worker-script", text().as_bytes())
}

fn text() -> String {
    let sources: Map<String, Value> =
        SOURCES.iter().map(|(name, source)| ((*name).to_owned(), Value::from(*source))).collect();
    // An object of texts in JSON is a dict of the same texts in Python.
    format!("SOURCES = {}\n{BOOT}", Value::Object(sources))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_where_the_command_line_says() {
        assert_eq!(crate::config::SCRIPT, format!("/proc/self/fd/{SCRIPT_FD}"));
    }

    #[test]
    fn no_file_of_the_module_is_left_out() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/python/taskd_worker");
        let mut there: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| Some(name.strip_suffix(".py")?.to_owned()))
            .collect();
        there.sort();
        assert_eq!(SOURCES.map(|(name, _)| name).to_vec(), there);
    }

    #[test]
    fn any_python_runs_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text()).unwrap();
        let mut command = std::process::Command::new("python3");
        command.arg(file.path()).arg("--help").current_dir("/");
        let ran = command.output().unwrap();
        let out = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(
            ran.status.success() && out.contains("--celery"),
            "{out}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}
