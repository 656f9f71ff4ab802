//! A daemon played by a thread: it has the tasks and queues that `tools.py` wants, and lets tasks come and go.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use taskd::celery::call::Call;
use taskd::celery::control::Command;
use taskd::celery::control::reply::Reply;
use taskd::celery::control::report::{self, Broker, Held, Stats};
use taskd::celery::envelope::Address;
use taskd::celery::event::Event;
use taskd::celery::json::build::{Object, list};
use taskd::celery::json::{Fields, Raw};
use taskd::celery::result::exception::Exception;
use taskd::control::celery::asked::{Asked, Heard};
use taskd::control::celery::{Peer, Setup};
use taskd::model::time::Wall;

/// What it is told, and where it goes on.
pub struct StandIn {
    thread: Option<JoinHandle<()>>,
    stop: mpsc::Sender<()>,
}

struct State {
    peer: Peer,
    running: Vec<String>,
    ahead: Vec<String>,
    low: bool,
    rate: Option<String>,
    limits: (Option<u64>, Option<u64>),
    lives: u32,
    over: bool,
}

const BUSY: &str = "of the stand-in";

impl StandIn {
    /// Begins to answer.
    pub fn start(server: taskd::control::celery::server::Server, setup: Setup) -> Self {
        let (peer, mut hears) = Peer::open(server, setup).unwrap();
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut state = State {
                peer,
                running: vec!["running-1".into(), "running-2".into()],
                ahead: vec!["ahead-1".into()],
                low: true,
                rate: None,
                limits: (None, None),
                lives: 0,
                over: false,
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            while !state.over && stopped.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                let next = async { tokio::time::timeout(Duration::from_millis(20), hears.recv()).await };
                match runtime.block_on(next) {
                    Ok(Some(Heard::Asked(asked))) => state.answer(asked),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => state.live(),
                }
            }
            state.peer.close(Duration::from_secs(2));
        });
        Self { thread: Some(thread), stop }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let (stop, _) = mpsc::channel();
        drop(std::mem::replace(&mut self.stop, stop));
        self.thread.take().map(JoinHandle::join);
    }
}

fn now() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Wall(i64::try_from(since.as_millis()).unwrap())
}

fn nap(id: &str) -> Call {
    let mut call = Call::new("shop.nap", id);
    call.args = Raw::parse("[600]").unwrap();
    call.address = Address::queue("default");
    call
}

impl State {
    fn held(&self, id: &str, running: bool) -> Raw {
        let (call, pid) = (nap(id), running.then_some(77));
        Held {
            call: &call,
            node: self.peer.node(),
            started: running.then(now),
            pid,
            acknowledged: false,
            redelivered: false,
        }
        .write(false)
    }

    /// A short life of a task.
    fn live(&mut self) {
        self.lives += 1;
        self.peer.vitals(self.running.len() as u64, u64::from(self.lives));
        let id = format!("life-{}", self.lives);
        let call = Call::new("shop.good", &id);
        let exception = Exception::new("builtins", "ValueError", [BUSY.to_owned()]);
        self.peer.happened(&Event::Received(&call));
        self.peer.happened(&Event::Started(&id));
        let (traceback, result) = (Some("Traceback"), Raw::of_int(5));
        self.peer.happened(&match self.lives % 4 {
            0 => Event::Succeeded { id: &id, result: &result, runtime: 0.5 },
            1 => Event::Failed { id: &id, exception: &exception, traceback },
            2 => Event::Retried { id: &id, exception: &exception, traceback },
            _ => Event::Revoked { id: &id, terminated: true, signum: Some(15), expired: false },
        });
    }

    fn answer(&mut self, asked: Asked) {
        let Asked { command, answer } = asked;
        let reply = match command {
            Command::Shutdown => {
                self.over = true;
                return answer.silent();
            }
            Command::Active { .. } => data(self.running.iter().map(|id| self.held(id, true))),
            Command::Reserved => data(self.ahead.iter().map(|id| self.held(id, false))),
            Command::Scheduled => {
                let call = nap("later-1");
                let node = self.peer.node();
                let held = Held {
                    call: &call,
                    node,
                    started: None,
                    pid: None,
                    acknowledged: false,
                    redelivered: false,
                };
                data([held.scheduled("2030-01-01T00:00:00+00:00")])
            }
            Command::Registered(items) => data(self.registered(&items)),
            Command::Stats => self.stats(),
            Command::ActiveQueues => {
                let queues = ["default", "low"].into_iter().filter(|name| *name != "low" || self.low);
                data(queues.map(report::queue))
            }
            Command::Conf { .. } => Reply::Data(
                Object::new()
                    .text("broker_url", &self.peer.server().url())
                    .text("task_default_queue", "default")
                    .done(),
            ),
            Command::Report => Reply::Done("software -> taskd:0".into()),
            Command::QueryTask(ids) => {
                let known = ids.iter().filter(|id| self.running.contains(id));
                let known =
                    known.map(|id| (id.clone(), list(&[Raw::of_text("active"), self.held(id, true)])));
                Reply::Data(known.collect::<Fields>().to_raw())
            }
            Command::Revoke { signal: Some(signal), .. } if signal == "SIGNOPE" => {
                Reply::refused("no signal")
            }
            Command::Revoke { ids, terminate, .. } => {
                self.ahead.retain(|id| !ids.contains(id));
                let running: Vec<String> =
                    ids.iter().filter(|id| self.running.contains(id)).cloned().collect();
                if terminate {
                    self.running.retain(|id| !ids.contains(id));
                    Reply::terminated(running)
                } else {
                    Reply::revoked(ids)
                }
            }
            Command::RevokeByStamps { stamps, terminate, .. } => {
                Reply::revoked_by_stamps(&stamps, terminate, false)
            }
            Command::RateLimit { task, .. } | Command::TimeLimit { task, .. } if task == "shop.unheard" => {
                Reply::unknown_task()
            }
            Command::RateLimit { rate, .. } if rate == "often" => Reply::no_rate(&rate),
            Command::RateLimit { rate, .. } => {
                self.rate = Some(rate).filter(|rate| rate != "0");
                Reply::rate_limited(self.rate.is_some())
            }
            Command::TimeLimit { hard_ms, soft_ms, .. } => {
                self.limits = (hard_ms, soft_ms);
                Reply::time_limited()
            }
            Command::AddConsumer(consumer) if consumer.queue != "low" => {
                Reply::refused(&format!("declare [queues.{}]", consumer.queue))
            }
            Command::AddConsumer(_) if self.low => Reply::consuming_already("low"),
            Command::AddConsumer(_) => {
                self.low = true;
                Reply::consuming("low")
            }
            Command::CancelConsumer(queue) => {
                self.low = false;
                Reply::not_consuming(&queue)
            }
            _ => Reply::refused(BUSY),
        };
        answer.send(&reply);
    }

    fn registered(&self, items: &[String]) -> Vec<Raw> {
        let seconds = |ms: Option<u64>| ms.map(|ms| (ms as f64 / 1000.0).to_string());
        let item = |name: &str| match name {
            "rate_limit" => self.rate.clone(),
            "max_retries" => Some("3".to_owned()),
            "time_limit" => seconds(self.limits.0),
            "soft_time_limit" => seconds(self.limits.1),
            _ => None,
        };
        let asked: Vec<&str> = match items {
            [] => vec!["rate_limit"],
            items => items.iter().map(String::as_str).collect(),
        };
        let known: Vec<_> = asked.into_iter().filter_map(|name| Some((name, item(name)?))).collect();
        let limited = [("rate_limit", "10/m".to_owned())];
        vec![report::registered("shop.nap", &known), report::registered("shop.limited", &limited)]
    }

    fn stats(&self) -> Reply {
        let (server, db) = (self.peer.server(), self.peer.server().db().to_string());
        let broker = Broker {
            host: &server.shown().host,
            port: server.shown().port,
            transport: "redis",
            virtual_host: &db,
            user: None,
            tls: false,
        };
        let stats = Stats {
            total: &[("shop.nap", 1)],
            pid: std::process::id(),
            clock: self.peer.clock(),
            uptime: 1,
            processes: &[77],
            concurrency: 1,
            max_tasks_per_child: None,
            prefetch: 3,
            broker,
            rusage: &[("maxrss", 1.0)],
        };
        Reply::Data(stats.write())
    }
}

fn data(items: impl IntoIterator<Item = Raw>) -> Reply {
    Reply::Data(list(&items.into_iter().collect::<Vec<_>>()))
}
