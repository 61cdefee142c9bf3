//! What changed since another build of the gateway, such as the last release: the same load on both, in turns.

use std::ffi::OsStr;

use crate::{
    Result,
    payload::Payload,
    process::Gateway,
    store::Store,
    turns::{self, Compared},
};

/// The variable that names the other program. Without it, nothing is compared.
pub(crate) const PROGRAM: &str = "BASELINE";

/// Compares `baseline` with this build, both with their defaults.
pub(crate) async fn measure(
    baseline: &OsStr,
    stores: [&Store; 2],
    redis_url: &str,
    payload: &Payload,
    quick: bool,
) -> Result<Compared> {
    let pair = |store: &Store| -> Result<[Gateway; 2]> {
        let other = Gateway::of(baseline, store, redis_url, "")?;
        Ok([other, Gateway::start(store, redis_url)?])
    };
    turns::compare(pair, stores, payload, quick).await
}
