//! What a worker does before it begins: it says hello to all others, learns what they know as revoked, and whether one
//! of them has its own name.

use std::time::{Duration, Instant};

use redis::{Connection, RedisResult};

use super::server::{Server, binding};
use crate::celery::control::{EXCHANGE, clock, reply};
use crate::celery::control::{ReplyTo, Request};
use crate::celery::envelope::{Address, Envelope};
use crate::celery::json::build::{Object, texts};
use crate::celery::json::{Json, Kind, Raw};

/// Largest reply that is read: 50,000 ids.
const MAX_REPLY: usize = 8 << 20;

/// Most ids that are told to others in one request.
const MAX_TOLD: usize = 50_000;

/// Who was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Another process answers under this name.
    pub clash: bool,
    /// The other nodes.
    pub nodes: Vec<String>,
    /// What they know as revoked.
    pub revoked: Vec<String>,
    /// The greatest of their logical clocks.
    pub clock: u64,
}

/// Says hello as `node`, and takes in the answers until none has come for `wait`. Where nobody listens it is over at
/// once. To be called before this node listens itself.
///
/// # Errors
/// The server cannot be reached, or refuses this.
pub fn meet(
    server: &Server,
    node: &str,
    revoked: &[String],
    own_clock: u64,
    wait: Duration,
) -> RedisResult<Met> {
    let mut connection = server.open(wait + Duration::from_secs(2))?;
    let oid = uuid::Uuid::new_v4().to_string();
    let to = ReplyTo { exchange: format!("reply.{EXCHANGE}"), routing_key: oid };
    let queue = reply::queue(&to);
    let (set, member, key) =
        (server.bindings(&to.exchange), binding(&to.routing_key, &queue), server.key(&queue));
    redis::cmd("SADD").arg(&set).arg(&member).query::<()>(&mut connection)?;
    let met = ask(server, &mut connection, &hello(node, revoked, own_clock, &to), &key, node, wait);
    let mut after = redis::pipe();
    after.cmd("SREM").arg(&set).arg(&member).ignore().cmd("DEL").arg(&key).ignore();
    after.query::<()>(&mut connection)?;
    met
}

fn ask(
    server: &Server,
    connection: &mut Connection,
    hello: &Envelope,
    key: &str,
    node: &str,
    wait: Duration,
) -> RedisResult<Met> {
    let mut met = Met::default();
    let listeners: u64 =
        redis::cmd("PUBLISH").arg(server.pidbox()).arg(hello.write().text()).query(connection)?;
    let mut answers = 0;
    let mut until = Instant::now() + wait;
    while answers < listeners && Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now()).as_secs_f64().max(0.01);
        let popped: Option<(Vec<u8>, Vec<u8>)> = redis::cmd("BRPOP").arg(key).arg(left).query(connection)?;
        let Some((_, message)) = popped else { break };
        answers += 1;
        until = Instant::now() + wait;
        take_in(&mut met, node, &message);
    }
    Ok(met)
}

fn take_in(met: &mut Met, node: &str, message: &[u8]) {
    let Ok(envelope) = Envelope::read(message) else { return };
    let Ok(text) = envelope.text(MAX_REPLY) else { return };
    let Ok(json) = Json::parse(&text) else { return };
    for (name, said) in json.entries().unwrap_or_default() {
        if name == node {
            met.clash = true;
            continue;
        }
        met.nodes.push(name);
        let clock = said.get("clock").and_then(Json::as_i64).and_then(|clock| u64::try_from(clock).ok());
        met.clock = met.clock.max(clock.unwrap_or(0));
        // Ids alone, or with times.
        let Some(ids) = said.get("revoked") else { continue };
        match ids.kind() {
            Kind::Object => {
                met.revoked.extend(ids.entries().unwrap_or_default().into_iter().map(|(id, _)| id))
            }
            _ => met.revoked.extend(ids.items().unwrap_or_default().into_iter().filter_map(Json::as_text)),
        }
    }
}

fn hello(node: &str, revoked: &[String], own_clock: u64, to: &ReplyTo) -> Envelope {
    let arguments =
        Object::new().text("from_node", node).with("revoked", &texts(revoked.iter().take(MAX_TOLD))).done();
    let request = Request::write("hello", &arguments, to, &uuid::Uuid::new_v4().to_string());
    let own_clock = Raw::of_int(i64::try_from(clock(own_clock, 0)).unwrap_or(i64::MAX));
    let headers = [("clock".to_owned(), own_clock), ("expires".to_owned(), Raw::of_int(0))];
    let address = Address { exchange: EXCHANGE.to_owned(), routing_key: String::new() };
    let tag = uuid::Uuid::new_v4().to_string();
    Envelope::new(&request, headers.into_iter().collect(), Envelope::properties_to(&address, &tag, false))
}
