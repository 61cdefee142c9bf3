//! One stream from a client far from the gateway, with windows of several sizes.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    GIB, Load, MIB, Result, payload::Payload, process::Gateway, proxy::Proxy, store::Store, through,
};

/// The windows in bytes; the first one is the default.
const WINDOWS: [u64; 4] = [MIB / 4, MIB / 2, MIB, 4 * MIB];

/// In milliseconds.
const ROUND_TRIPS: [u64; 3] = [0, 10, 50];

/// How often each is measured. The best counts, because other load only makes it slower.
const ROUNDS: usize = 3;

/// A stream with one window over one distance.
#[derive(Debug)]
pub(crate) struct Far {
    pub(crate) window: u64,
    pub(crate) round_trip: Duration,
    pub(crate) load: Load,
    pub(crate) elapsed: Duration,
}

/// Sends a file with each window over each distance.
pub(crate) async fn measure(
    store: &Store,
    redis_url: &str,
    payload: &Payload,
    quick: bool,
) -> Result<Vec<Far>> {
    let mut all = Vec::new();
    for window in WINDOWS {
        // The window of a connection is as many times that of a stream.
        let limits = format!("[limits]\nstream_window = {window}\nmax_concurrent_streams = 100\n");
        let gateway = Gateway::configured(store, redis_url, &limits)?;
        let server = gateway.address.trim_start_matches("http://").parse()?;
        for round_trip in ROUND_TRIPS.map(Duration::from_millis) {
            let proxy = Proxy::delaying(server, round_trip).await?;
            let load = Load {
                streams: 1,
                file_size: match round_trip.is_zero() && !quick {
                    true => GIB,
                    false => 64 * MIB,
                },
            };
            let mut elapsed = Duration::MAX;
            for _ in 0..if quick { 1 } else { ROUNDS } {
                let begin = Instant::now();
                let address = format!("http://{}", proxy.address);
                let uploads = through::upload(&address, load, payload, None).await?;
                elapsed = elapsed.min(begin.elapsed());
                store.delete(crate::keys(uploads)).await?;
            }
            all.push(Far {
                window,
                round_trip,
                load,
                elapsed,
            });
        }
    }
    Ok(all)
}
