//! Whether the servers evict keys when their memory is full.

use redis::{Value, from_redis_value};
use upload_gateway_core::error::Result;

use super::{ConnectError, Redis};

impl Redis {
    /// Refuses servers that evict keys when their memory is full; if that is `allowed`, only logs a warning.
    ///
    /// # Errors
    /// [`ConnectError::Evicts`]; [`ConnectError::Failed`] if Redis is unavailable.
    pub(super) async fn check_eviction(&self, allowed: bool) -> Result<(), ConnectError> {
        let report = self
            .link
            .command::<Value>(redis::cmd("INFO").arg("memory"))
            .await;
        let policies = match report {
            Ok(report) => eviction_policies(&report),
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(_) => Vec::new(),
        };
        if policies.is_empty() {
            tracing::warn!(
                "redis does not report its maxmemory-policy: make sure that it is noeviction, or uploads may be lost"
            );
        }
        for policy in policies {
            if policy == "noeviction" {
                continue;
            }
            if !allowed {
                return Err(ConnectError::Evicts { policy });
            }
            tracing::warn!(policy, "redis evicts uploads when its memory is full");
        }
        Ok(())
    }
}

/// The `maxmemory_policy` of each server in a reply to INFO; a Cluster's reply holds one text for each node.
fn eviction_policies(report: &Value) -> Vec<String> {
    match report {
        Value::Array(items) => items.iter().flat_map(eviction_policies).collect(),
        Value::Map(entries) => entries
            .iter()
            .flat_map(|(_, text)| eviction_policies(text))
            .collect(),
        text => from_redis_value::<String>(text.clone())
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.strip_prefix("maxmemory_policy:"))
            .map(str::to_owned)
            .collect(),
    }
}
