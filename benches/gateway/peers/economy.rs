//! What uploads cost besides time, one after the other: Redis round trips, and connections to the store.

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::senders::{Digest, Through};
use crate::{MIB, Result, payload::Payload, proxy::Proxy, store::Store};

/// Each round trip of an upload has a script with the key of its record. What a replica does by itself has none: health checks,
/// stops, counts.
const UPLOADS: &[u8] = b":upload:{";

/// What uploads of one size cost.
#[derive(Debug)]
pub(crate) struct Economy {
    /// Redis round trips of each.
    pub(crate) round_trips: f64,
    /// New connections to the store. `None` if the store does not count them.
    pub(crate) connections: Option<u64>,
    /// The requests of all of them to the store. `None` if the store does not count them.
    pub(crate) requests: Option<u64>,
    /// The size of each in bytes.
    pub(crate) size: u64,
}

/// Sends files through a gateway of its own, whose Redis is behind a proxy that counts. Another one is sent before: what a process
/// does only once does not count.
pub(super) async fn measure(
    store: &Store,
    redis_url: &str,
    payload: &Payload,
    (files, size): (u64, u64),
) -> Result<Economy> {
    let redis = redis_url.into_connection_info()?;
    let ConnectionAddr::Tcp(host, port) = redis.addr() else {
        return Err("a Redis without TLS is needed".into());
    };
    let server = format!("{host}:{port}").parse()?;
    let proxy = Proxy::counting(server, UPLOADS).await?;
    let url = format!("redis://{}", proxy.address);
    let through = Through::start(Digest::Default, store, &url, 1).await?;
    let first = through.send(0, payload, size.min(16 * MIB)).await?;
    store.delete(first).await?;
    let before = (proxy.round_trips(), store.connections(), store.requests());
    let mut keys = Vec::new();
    for number in 0..files {
        keys.extend(through.send(number, payload, size).await?);
    }
    let round_trips = u32::try_from(proxy.round_trips() - before.0)?;
    let more = |after: Option<u64>, before| after.zip(before).map(|(after, before)| after - before);
    let economy = Economy {
        round_trips: f64::from(round_trips) / f64::from(u32::try_from(files)?),
        connections: more(store.connections(), before.1),
        requests: more(store.requests(), before.2),
        size,
    };
    store.delete(keys).await?;
    Ok(economy)
}
