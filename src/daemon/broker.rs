//! The broker that the settings name: the store on it, and Celery's tools where it is one that they share.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo};
use tokio::sync::mpsc;

use super::peer::Celery;
use crate::broker::Completion;
use crate::broker::redis::outside::{Outside, Terms, TermsOf};
use crate::broker::redis::{self, Redis, Woken};
use crate::broker::sqlite::{Options, Sqlite};
use crate::broker::store::Store;
use crate::config::redis::{Address, Place};
use crate::config::settings::{DEFAULT, Settings};
use crate::control::celery::asked::Heard;
use crate::control::celery::server::{Server, Shown};
use crate::model::name::{glob_matches, longest_pattern};
use crate::model::task::OUTSIDE;

/// Exit code when the store cannot be opened, of sysexits(3): EX_IOERR.
const STORE: u8 = 74;

/// Exit code when the server that the settings name can never be the broker, or another node of it has this one's name,
/// of sysexits(3): EX_CONFIG.
pub const REFUSED: u8 = 78;

/// A server that does not take a connection in this time is away.
const CONNECT: Duration = Duration::from_secs(2);

/// What a node holds is given to others when it said nothing for so long.
pub const LEASE: Duration = Duration::from_secs(30);

/// Opens the store that the settings name. `on_done` gets its answers, `wake` what others make known.
pub fn open(
    settings: &Settings,
    on_done: Box<dyn Fn(Vec<Completion>) + Send>,
    wake: mpsc::UnboundedSender<Woken>,
) -> Result<Store, (u8, String)> {
    let broker = settings.taskd.broker.as_str();
    if broker == "embedded" {
        let opened = Sqlite::open(&settings.taskd.state_dir, Options::default(), on_done);
        return opened.map(Store::Embedded).map_err(|e| (STORE, e.to_string()));
    }
    let address = Address::parse(broker).map_err(|e| (REFUSED, format!("[taskd] broker: {}", e.message)))?;
    let options = redis::Options {
        address,
        allow_eviction: settings.taskd.allow_eviction,
        node: settings.taskd.node.clone(),
        identity: identity(&settings.taskd.state_dir).map_err(|why| (STORE, why))?,
        lease: LEASE,
        peer: Some(peer(settings)),
    };
    // The loop is gone only when the process ends.
    let on_wake = Box::new(move |woken| drop(wake.send(woken)));
    let opened = Redis::open(options, on_done, on_wake);
    opened.map(Store::Redis).map_err(|e| (REFUSED, format!("[taskd] broker: {e}")))
}

/// What only one process at a time is: this state directory (which a process of taskd locks) under this boot of the
/// kernel. A copy of it elsewhere, also in a container, is another one.
fn identity(state_dir: &Path) -> Result<String, String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let found = std::fs::metadata(state_dir).map_err(|e| format!("{}: {e}", state_dir.display()))?;
    Ok(format!("{} {}:{}", boot.trim(), found.dev(), found.ino()))
}

/// What this node is to Celery.
pub fn peer(settings: &Settings) -> redis::celery::Peer {
    let terms = terms(settings);
    let route = {
        let terms = terms.clone();
        move |task: &str| terms(task).map(|terms| terms.queue)
    };
    let shared = settings.queues.values().filter(|q| q.shared).map(|q| q.name.clone());
    let outside =
        Outside { queues: settings.outside().into_iter().collect(), shared: shared.collect(), terms };
    redis::celery::Peer {
        queues: settings.queues.keys().cloned().collect(),
        route: Arc::new(route),
        result_seconds: settings.results.expires_ms.div_ceil(1_000),
        results: settings.taskd.results != "none",
        apps: settings.queues.keys().filter(|queue| has_app(settings, queue)).cloned().collect(),
        outside,
    }
}

/// Whether a queue is drained by a pool that runs a Celery app.
pub(super) fn has_app(settings: &Settings, queue: &str) -> bool {
    let worker = settings.pool_of(queue).and_then(|pool| pool.worker.as_ref());
    worker.is_some_and(|worker| worker.celery_app.is_some())
}

/// What tasks say of their calls: all of it is looked up by the name of the task, which a pattern may declare.
fn terms(settings: &Settings) -> TermsOf {
    let routes: Vec<(String, String)> =
        settings.routes.iter().map(|r| (r.task.clone(), r.queue.clone())).collect();
    let own: BTreeMap<String, (Option<String>, Terms)> = settings
        .tasks
        .iter()
        .map(|(name, task)| {
            let terms = Terms {
                queue: (if task.external { OUTSIDE } else { DEFAULT }).to_owned(),
                external: task.external,
                ignore_result: task.ignore_result && task.external,
                result_max_size: task.result_max_size,
                result_expires_ms: task.result_expires_ms,
                time_limit_ms: task.time_limit_ms,
                soft_time_limit_ms: task.soft_time_limit_ms,
            };
            (name.clone(), (task.queue.clone(), terms))
        })
        .collect();
    Arc::new(move |task| {
        let pattern = || longest_pattern(own.keys().map(String::as_str), task);
        let (queue, terms) = own.get(task).or_else(|| own.get(pattern()?))?;
        let routed = || Some(routes.iter().find(|(glob, _)| glob_matches(glob, task))?.1.clone());
        let queue = queue.clone().or_else(routed).unwrap_or_else(|| terms.queue.clone());
        Some(Terms { queue, ..terms.clone() })
    })
}

/// What Celery's tools see of this node, where its broker is one that they share.
///
/// # Errors
/// A sentence, where they can never be served.
pub fn tools(settings: &Settings) -> Result<(Option<Celery>, Option<mpsc::Receiver<Heard>>), String> {
    let Some(server) = server(settings)? else { return Ok((None, None)) };
    let (celery, hears) = super::peer::open(settings, server)?;
    Ok((Some(celery), Some(hears)))
}

/// The server on which Celery's tools are; absent: there is none, or they cannot find it.
fn server(settings: &Settings) -> Result<Option<Server>, String> {
    if settings.taskd.broker == "embedded" {
        return Ok(None);
    }
    let wrong = |why: String| format!("[taskd] broker: {why}");
    let address = Address::parse(&settings.taskd.broker).map_err(|e| wrong(e.message))?;
    let (place, shown) = match &address.place {
        Place::Tcp { host, port } if address.tls.is_none() => {
            (ConnectionAddr::Tcp(host.clone(), *port), (host.clone(), *port))
        }
        Place::Unix(path) => (ConnectionAddr::Unix(path.clone()), (path.display().to_string(), 0)),
        Place::Tcp { .. } | Place::Sentinel { .. } => {
            tracing::warn!(
                "celery inspect, control and events are not answered: taskd listens to them on redis:// and unix \
                 sockets only, not over TLS or behind sentinels"
            );
            return Ok(None);
        }
    };
    let (db, user) = (i64::from(address.db), address.user.clone());
    let shown = Shown { host: shown.0, port: shown.1, user: user.clone(), tls: false };
    let prefix = address.prefix.clone();
    let open = move || {
        let mut settings = RedisConnectionInfo::default().set_db(db);
        if let Some(user) = &user {
            settings = settings.set_username(user);
        }
        // Read anew each time: whoever changes a password changes the file too.
        let password = crate::link::redis::password_of(&address)
            .map_err(|why| ::redis::RedisError::from((ErrorKind::AuthenticationFailed, "password", why)))?;
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        let info = place.clone().into_connection_info()?.set_redis_settings(settings);
        ::redis::Client::open(info)?.get_connection_with_timeout(CONNECT)
    };
    Ok(Some(Server::new(Arc::new(open), shown, db, &prefix)))
}
