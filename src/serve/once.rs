//! A gateway without listeners, for commands that do one thing.

use std::sync::Arc;

use upload_gateway_core::{
    error::Result,
    gateway::{AdoptReport, Gateway, SweepReport},
    upload::Owner,
};

use super::{backends::connect, clock::SystemClock, error::ServeError, sweeper};
use crate::config::Config;

/// Sweeps once with the stores of `config`, even if its sweeper is disabled. `None`: another replica sweeps right now.
///
/// # Errors
/// The stores cannot be used, or the state store is unavailable.
pub async fn sweep_once(config: &Config, dry_run: bool) -> Result<Option<SweepReport>, ServeError> {
    once(config, async |gateway| {
        sweeper::sweep_once(gateway, &config.sweeper, dry_run).await
    })
    .await
}

/// Gives all uploads without an owner in the state store of `config` to `owner`; with `dry_run`, only counts them.
///
/// # Errors
/// The stores cannot be used, or the state store is unavailable.
pub async fn adopt(
    config: &Config,
    owner: &Owner,
    dry_run: bool,
) -> Result<AdoptReport, ServeError> {
    once(config, async |gateway| {
        gateway.records.adopt(owner, dry_run).await
    })
    .await
}

async fn once<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Gateway) -> Result<T>,
) -> Result<T, ServeError> {
    let backends = connect(config).await?;
    let gateway = Gateway::new(
        Arc::clone(&backends.state),
        backends.storages.clone(),
        config.settings()?,
        Arc::new(SystemClock),
    );
    let done = work(&gateway.await?).await;
    backends.stop().await;
    Ok(done?)
}
