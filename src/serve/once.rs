//! A gateway without listeners, for commands that do one thing.

use std::sync::Arc;

use upload_gateway_core::{
    error::Result,
    gateway::{AdoptReport, Gateway, Restore, RestoreReport, SweepReport},
    upload::Owner,
};

use super::{backends::connect, clock::SystemClock, error::ServeError, record_key, sweeper};
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

/// Restores the records of all files of `config`'s storages, or of the one with this id, which the state store does not have.
/// Returns what was done in each storage.
///
/// # Errors
/// The stores cannot be used, the state store is unavailable, or there is no such storage.
pub async fn restore(
    config: &Config,
    storage_id: Option<&str>,
    how: Restore,
) -> Result<Vec<(String, RestoreReport)>, ServeError> {
    once(config, async |gateway| {
        let storages = match storage_id {
            Some(id) => vec![gateway.storages.get(id)?],
            None => gateway.storages.iter().cloned().collect(),
        };
        let mut reports = Vec::new();
        for storage in storages {
            let report = gateway.records.restore_all(&storage, how).await?;
            reports.push((storage.id.clone(), report));
        }
        Ok(reports)
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
        record_key::settings(config)?,
        Arc::new(SystemClock),
    );
    let done = work(&gateway.await?).await;
    backends.stop().await;
    Ok(done?)
}
