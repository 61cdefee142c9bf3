//! The same load on two gateways, in turns, so that what else the machine does affects both.

use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::{
    GIB, Load, MIB, Result,
    payload::Payload,
    process::Gateway,
    signing::{self, Bearer, Case},
    store::Store,
    through,
};

/// How often each load is measured.
const TURNS: usize = 5;

/// How many parts a call of `SignParts` signs.
pub(crate) const WINDOW: i32 = 100;

/// Two gateways under the same loads.
#[derive(Debug)]
pub(crate) struct Compared {
    /// The time of the same calls of `SignPart`, median, of each.
    pub(crate) sign_part: [Duration; 2],
    /// The time of the same calls of `SignParts`, median, of each.
    pub(crate) sign_parts: [Duration; 2],
    /// The time of the same files, median, of each.
    pub(crate) files: [Duration; 2],
    /// Their load.
    pub(crate) load: Load,
    /// The peak memory of each after these files, in bytes.
    pub(crate) memory: [u64; 2],
}

/// Compares the two gateways that `pair` starts: signing on the first store, files to the second one.
pub(crate) async fn compare(
    pair: impl Fn(&Store) -> Result<[Gateway; 2]>,
    [signing_store, file_store]: [&Store; 2],
    payload: &Payload,
    quick: bool,
) -> Result<Compared> {
    let callers = pair(signing_store)?.map(|gateway| (gateway, Bearer::default()));
    let sign_part = signing(&callers, 1, quick).await?;
    let sign_parts = signing(&callers, WINDOW, quick).await?;
    let gateways = pair(file_store)?;
    let load = Load {
        streams: 16,
        file_size: if quick { 16 * MIB } else { GIB / 4 },
    };
    let mut channels = Vec::new();
    for gateway in &gateways {
        let endpoint = Endpoint::from_shared(gateway.address.clone())?;
        channels.push(endpoint.connect().await?);
    }
    let channels = channels.try_into().map_err(|_| "two gateways")?;
    Ok(Compared {
        sign_part,
        sign_parts,
        files: files(&channels, file_store, payload, load).await?,
        load,
        memory: [gateways[0].peak_memory()?, gateways[1].peak_memory()?],
    })
}

/// The time of the same signing calls for `window` parts, median, of each of two gateways and their callers.
pub(crate) async fn signing(
    gateways: &[(Gateway, Bearer); 2],
    window: i32,
    quick: bool,
) -> Result<[Duration; 2]> {
    let calls = if quick { 500 } else { 5_000 };
    let case = Case {
        in_flight: 16,
        window,
        calls: calls / (window / 10).max(1),
    };
    let mut clients = Vec::new();
    for (gateway, bearer) in gateways {
        let mut client = signing::connect(&gateway.address, bearer.clone()).await?;
        let upload_id = signing::begin(&mut client).await?;
        signing::run(&client, &upload_id, Case { calls: 200, ..case }).await?;
        clients.push((client, upload_id));
    }
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        for ((client, upload_id), times) in clients.iter().zip(&mut times) {
            let begin = Instant::now();
            signing::run(client, upload_id, case).await?;
            times.push(begin.elapsed());
        }
    }
    Ok(times.map(median))
}

/// The time of the same files, median, over each of two connections.
pub(crate) async fn files(
    channels: &[Channel; 2],
    store: &Store,
    payload: &Payload,
    load: Load,
) -> Result<[Duration; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    for turn in 0..=TURNS / 2 {
        for (channel, times) in channels.iter().zip(&mut times) {
            let begin = Instant::now();
            let uploads =
                through::upload_over(std::slice::from_ref(channel), load, payload, None).await?;
            // The first one warms up.
            if turn > 0 {
                times.push(begin.elapsed());
            }
            store.delete(crate::keys(uploads)).await?;
        }
    }
    Ok(times.map(median))
}

/// The one in the middle.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
