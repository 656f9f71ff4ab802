//! What `celery inspect` and Flower are told of a node, in the shapes that they read.

use crate::celery::call::Call;
use crate::celery::json::build::{Object, list, texts};
use crate::celery::json::{Fields, Raw};
use crate::celery::moment::unix;
use crate::celery::repr;
use crate::model::time::Wall;

/// A call that a node holds.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// The call.
    pub call: &'a Call,
    /// Who holds it.
    pub node: &'a str,
    /// When it was started; absent: it was not.
    pub started: Option<Wall>,
    /// By which process.
    pub pid: Option<u32>,
    /// Whether it was acknowledged already (`acks = "early"`).
    pub acknowledged: bool,
    /// Whether somebody had it before.
    pub redelivered: bool,
}

impl Held<'_> {
    /// The call; with `safe`, its arguments as text.
    #[must_use]
    pub fn write(&self, safe: bool) -> Raw {
        let call = self.call;
        let (args, kwargs) = if safe {
            let shown = |own: &Option<String>, other: String| Raw::of_text(own.as_deref().unwrap_or(&other));
            (
                shown(&call.args_repr, repr::arguments(call.args.json(), repr::MAX_ARGS)),
                shown(&call.kwargs_repr, repr::short(call.kwargs.json(), repr::MAX_ARGS)),
            )
        } else {
            (call.args.clone(), call.kwargs.clone())
        };
        let info = Object::new()
            .text("exchange", &call.address.exchange)
            .text("routing_key", &call.address.routing_key)
            .int("priority", i64::from(call.priority))
            .bool("redelivered", self.redelivered)
            .done();
        Object::new()
            .text("id", &call.id)
            .text("name", &call.task)
            .with("args", &args)
            .with("kwargs", &kwargs)
            .text("type", &call.task)
            .text("hostname", self.node)
            .with("time_start", &self.started.map_or_else(Raw::null, |at| Raw::of_float(unix(at))))
            .bool("acknowledged", self.acknowledged)
            .with("delivery_info", &info)
            .with("worker_pid", &self.pid.map_or_else(Raw::null, |pid| Raw::of_int(i64::from(pid))))
            .done()
    }

    /// The call as an entry of `scheduled`.
    #[must_use]
    pub fn scheduled(&self, eta: &str) -> Raw {
        // 6 is what every worker says of every one.
        Object::new().text("eta", eta).int("priority", 6).with("request", &self.write(false)).done()
    }
}

/// A queue as `active_queues` shows it: all that kombu says of one that is bound to the exchange of its own name.
#[must_use]
pub fn queue(name: &str) -> Raw {
    let exchange = Object::new()
        .text("name", name)
        .text("type", "direct")
        .null("arguments")
        .bool("durable", true)
        .bool("passive", false)
        .bool("auto_delete", false)
        .null("delivery_mode")
        .bool("no_declare", false)
        .done();
    Object::new()
        .text("name", name)
        .with("exchange", &exchange)
        .text("routing_key", name)
        .null("queue_arguments")
        .null("binding_arguments")
        .null("consumer_arguments")
        .bool("durable", true)
        .bool("exclusive", false)
        .bool("auto_delete", false)
        .bool("no_ack", false)
        .null("alias")
        .with("bindings", &Raw::empty_list())
        .null("no_declare")
        .null("expires")
        .null("message_ttl")
        .null("max_length")
        .null("max_length_bytes")
        .null("max_priority")
        .done()
}

/// A task as `registered` shows it: its name, and what of it was asked for and is known.
#[must_use]
pub fn registered(name: &str, items: &[(&str, String)]) -> Raw {
    if items.is_empty() {
        return Raw::of_text(name);
    }
    let items: Vec<String> = items.iter().map(|(item, value)| format!("{item}={value}")).collect();
    Raw::of_text(&format!("{name} [{}]", items.join(" ")))
}

/// The reply to `hello`, absent keys and all.
#[must_use]
pub fn hello<S: AsRef<str>>(revoked: impl IntoIterator<Item = S>, clock: u64) -> Raw {
    let clock = i64::try_from(clock).unwrap_or(i64::MAX);
    Object::new().with("revoked", &texts(revoked)).int("clock", clock).done()
}

/// The broker as `stats` shows it; Flower's pages need it.
#[derive(Clone, Copy, Debug)]
pub struct Broker<'a> {
    /// Its host.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// `redis` or `amqp`.
    pub transport: &'a str,
    /// The database or virtual host.
    pub virtual_host: &'a str,
    /// The user, never the password.
    pub user: Option<&'a str>,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
}

/// Figures of a node.
#[derive(Clone, Debug)]
pub struct Stats<'a> {
    /// Calls done since it started, by task.
    pub total: &'a [(&'a str, u64)],
    /// Its process.
    pub pid: u32,
    /// Its logical clock.
    pub clock: u64,
    /// Seconds since it started.
    pub uptime: u64,
    /// Its child processes.
    pub processes: &'a [u32],
    /// The most of them.
    pub concurrency: u32,
    /// After how many calls one is replaced; absent: never.
    pub max_tasks_per_child: Option<u32>,
    /// Calls that it takes ahead.
    pub prefetch: u32,
    /// The broker.
    pub broker: Broker<'a>,
    /// What the kernel counted of the process: `utime`, `maxrss` and so on, without `ru_`.
    pub rusage: &'a [(&'a str, f64)],
}

impl Stats<'_> {
    /// The reply to `stats`.
    #[must_use]
    pub fn write(&self) -> Raw {
        let count = |n: u64| Raw::of_int(i64::try_from(n).unwrap_or(i64::MAX));
        let fields = |them: Vec<(String, Raw)>| them.into_iter().collect::<Fields>().to_raw();
        let total = fields(self.total.iter().map(|(task, n)| ((*task).to_owned(), count(*n))).collect());
        let rusage =
            fields(self.rusage.iter().map(|(name, n)| ((*name).to_owned(), Raw::of_float(*n))).collect());
        let processes: Vec<Raw> = self.processes.iter().map(|pid| Raw::of_int(i64::from(*pid))).collect();
        let per_child = match self.max_tasks_per_child {
            Some(n) => Raw::of_int(i64::from(n)),
            None => Raw::of_text("N/A"),
        };
        let pool = Object::new()
            .text("implementation", "taskd:pool")
            .int("max-concurrency", i64::from(self.concurrency))
            .with("processes", &list(&processes))
            .with("max-tasks-per-child", &per_child)
            .bool("put-guarded-by-semaphore", false)
            .with("timeouts", &list(&[Raw::of_int(0), Raw::of_int(0)]))
            .text("writes", "N/A")
            .done();
        Object::new()
            .with("total", &total)
            .int("pid", i64::from(self.pid))
            .text("clock", &self.clock.to_string())
            .with("uptime", &count(self.uptime))
            .with("pool", &pool)
            .with("broker", &self.broker.write())
            .int("prefetch_count", i64::from(self.prefetch))
            .with("rusage", &rusage)
            .done()
    }
}

impl Broker<'_> {
    fn write(&self) -> Raw {
        Object::new()
            .text("hostname", self.host)
            .option("userid", self.user)
            .text("virtual_host", self.virtual_host)
            .int("port", i64::from(self.port))
            .bool("insist", false)
            .bool("ssl", self.tls)
            .text("transport", self.transport)
            .int("connect_timeout", 4)
            .with("transport_options", &Raw::empty_object())
            .null("login_method")
            .null("uri_prefix")
            .null("credential_provider")
            .float("heartbeat", 120.0)
            .text("failover_strategy", "round-robin")
            .with("alternates", &Raw::empty_list())
            .done()
    }
}
