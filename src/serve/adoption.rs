//! Gives uploads without an owner to one, for the command line.

use std::sync::Arc;

use upload_gateway_core::{
    gateway::{AdoptReport, Gateway},
    upload::Owner,
};

use super::{backends::connect, clock::SystemClock, error::ServeError};
use crate::config::Config;

/// Gives all uploads without an owner in the state store of `config` to `owner`; with `dry_run`, only counts them.
///
/// # Errors
/// The stores cannot be used, or the state store is unavailable.
pub async fn adopt(
    config: &Config,
    owner: &Owner,
    dry_run: bool,
) -> Result<AdoptReport, ServeError> {
    let backends = connect(config).await?;
    let gateway = Gateway::new(
        Arc::clone(&backends.state),
        backends.storages.clone(),
        config.settings()?,
        Arc::new(SystemClock),
    );
    let adopted = gateway.await?.records.adopt(owner, dry_run).await;
    backends.stop().await;
    Ok(adopted?)
}
