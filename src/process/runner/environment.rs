//! The environment and surroundings of an attempt: clean, and exactly what DESIGN and the task say.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

use super::environment_file;
use crate::config::{DIRECTORY, Secrets, credential};
use crate::model::params::Bound;
use crate::model::task::{Surroundings, Task};

/// Where programs are looked for, and `PATH` of every task that sets none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is the same for every attempt of a process: who it is and where.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG` and `TASKD_NODE`, `TASKD_INSTANCE`.
    base: BTreeMap<String, String>,
    /// What sets the attempt apart wins over all that the task says.
    own: Vec<(String, String)>,
    /// What `${credential:NAME}` stands for.
    secrets: Secrets,
}

/// One attempt's own variables.
#[derive(Clone, Copy, Debug)]
pub struct Naming<'a> {
    /// `TASKD_ID`.
    pub id: &'a str,
    /// `TASKD_QUEUE`.
    pub queue: &'a str,
    /// `TASKD_ATTEMPT`.
    pub attempt: u32,
    /// `CREDENTIALS_DIRECTORY`, where the task has one.
    pub credentials: Option<&'a Path>,
}

impl Identity {
    /// Of the user this process runs as, with the secrets that it was given.
    #[must_use]
    pub fn new(node: &str, instance: &str, secrets: Secrets) -> Self {
        let uid = nix::unistd::getuid();
        let user = nix::unistd::User::from_uid(uid).ok().flatten();
        let (name, home, shell) = user.map_or_else(
            || (uid.to_string(), "/".to_owned(), "/bin/sh".to_owned()),
            |u| (u.name, u.dir.to_string_lossy().into_owned(), u.shell.to_string_lossy().into_owned()),
        );
        let mut base = BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("HOME".to_owned(), home),
            ("USER".to_owned(), name.clone()),
            ("LOGNAME".to_owned(), name),
            ("SHELL".to_owned(), shell),
        ]);
        if let Ok(lang) = std::env::var("LANG") {
            base.insert("LANG".to_owned(), lang);
        }
        let own = vec![
            ("TASKD_NODE".to_owned(), node.to_owned()),
            ("TASKD_INSTANCE".to_owned(), instance.to_owned()),
        ];
        Self { base, own, secrets }
    }

    /// The whole environment of an attempt, and the `PATH` in it. Later wins: the base, what is passed on,
    /// the file, the task's own, its parameters, taskd's.
    ///
    /// # Errors
    /// The environment file cannot be read, a credential is not there, or a value has a NUL byte; a sentence
    /// without any value.
    pub fn environment(
        &self,
        task: &Task,
        bound: &Bound,
        naming: Naming<'_>,
    ) -> Result<(Vec<CString>, String), String> {
        let mut all = self.surrounded(&task.surroundings)?;
        all.extend(bound.environment(task).iter().cloned());
        all.extend(self.own.iter().cloned());
        for (name, value) in [
            ("TASKD_ID", naming.id),
            ("TASKD_TASK", &task.name),
            ("TASKD_QUEUE", naming.queue),
            ("TASKD_ATTEMPT", &naming.attempt.to_string()),
        ] {
            all.insert(name.to_owned(), value.to_owned());
        }
        if let Some(path) = naming.credentials {
            all.insert(DIRECTORY.to_owned(), path.to_string_lossy().into_owned());
        }
        lines(all)
    }

    /// The whole environment of a resident worker, and the `PATH` in it. Later wins: the base, what is passed
    /// on, the file, its own, taskd's, `own`.
    ///
    /// # Errors
    /// As for [`Identity::environment`].
    pub fn of_worker(
        &self,
        surroundings: &Surroundings,
        own: BTreeMap<&str, String>,
    ) -> Result<(Vec<CString>, String), String> {
        let mut all = self.surrounded(surroundings)?;
        all.extend(self.own.iter().cloned());
        all.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        lines(all)
    }

    /// The base and what the config adds to it.
    fn surrounded(&self, surroundings: &Surroundings) -> Result<BTreeMap<String, String>, String> {
        let mut all = self.base.clone();
        for name in &surroundings.pass_environment {
            if let Ok(value) = std::env::var(name) {
                all.insert(name.clone(), value);
            }
        }
        if let Some(path) = &surroundings.environment_file {
            all.extend(environment_file::read(path)?);
        }
        for (name, value) in &surroundings.environment {
            let value = credential::expand(value, &self.secrets)
                .map_err(|why| format!("environment {name}: {why}"))?;
            all.insert(name.clone(), value);
        }
        Ok(all)
    }
}

/// As execve(2) wants them, and the `PATH` among them.
fn lines(all: BTreeMap<String, String>) -> Result<(Vec<CString>, String), String> {
    let path = all.get("PATH").cloned().unwrap_or_default();
    let lines = all
        .into_iter()
        .map(|(name, value)| {
            CString::new(format!("{name}={value}"))
                .map_err(|_| format!("the value of the environment variable {name:?} has a NUL byte"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((lines, path))
}
