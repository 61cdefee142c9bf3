//! The checks of the state store.

use upload_gateway_core::state::StateStore;

use super::{
    memory, redis,
    report::{Check, Fix},
};
use crate::{cli::error::chain, config::Config, serve};

const WRITE: &str = "write";

/// Checks the state store of `config`.
pub(super) async fn check(config: &Config) -> Vec<Check> {
    let subject = subject(config);
    let mut checks = match serve::redis_config(config) {
        Some(redis) => redis::check(&subject, &redis).await,
        None => Vec::new(),
    };
    if checks.iter().any(Check::is_failed) {
        return checks;
    }
    let state = match serve::connect_state(config).await {
        Ok(state) => state,
        Err(error) => {
            let failed = Check::failed(&subject, "connect", chain(error.as_ref()));
            checks.push(failed.with(fix(config)));
            return checks;
        }
    };
    checks.push(check_write(config, state.as_ref()).await);
    checks.extend(memory::of_state(&subject, state.as_ref(), &config.records).await);
    checks
}

/// Whether the state store can be written.
pub(super) async fn check_write(config: &Config, state: &dyn StateStore) -> Check {
    let subject = subject(config);
    match state.check().await {
        Ok(()) => Check::ok(&subject, WRITE, "available and writable"),
        Err(error) => Check::failed(&subject, WRITE, chain(&error)).with(fix(config)),
    }
}

/// What to check if the state store fails.
pub(super) fn fix(config: &Config) -> Fix {
    match config.redis_url {
        Some(_) => Fix::key(
            "redis_url",
            "check that Redis runs there, that its password and redis.mode are correct, and that it does not evict keys \
             (CONFIG SET maxmemory-policy noeviction)",
        ),
        None => Fix::key(
            "data_dir",
            "check that it is writable and that no gateway uses it: `upload-gateway ls` calls a running gateway",
        ),
    }
}

fn subject(config: &Config) -> String {
    match &config.redis_url {
        Some(url) => format!("state in {url}"),
        None => format!("state in {}", config.data_dir.display()),
    }
}
