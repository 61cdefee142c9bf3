//! The memory of the servers, and removing records from it.
//!
//! No index has the COMPLETE uploads of all owners by their age, because it would need memory itself. Records are found by
//! walking the keys of a server (SCAN), some at a time.

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use redis::{Value, from_redis_value};
use upload_gateway_core::{
    error::Result,
    state::{Memory, MemoryStore, Sample},
    upload::{Phase, Upload, UploadId},
};

use super::{Redis, scripts::SCRIPTS};

/// About how many keys of the server one sample looks at.
const KEYS: usize = 1_000;

/// How many records are read at the same time.
const CONCURRENCY: usize = 64;

#[async_trait]
impl MemoryStore for Redis {
    async fn memory(&self) -> Result<Option<Memory>> {
        let report = self
            .link
            .command::<Value>(redis::cmd("INFO").arg("memory"))
            .await;
        let nodes = match report {
            Ok(report) => memories(String::new(), &report),
            Err(error) if error.is_retryable() => return Err(error),
            // The server does not report it.
            Err(_) => return Ok(None),
        };
        // Nodes without a limit compare by what they use.
        let beyond_half = |node: &Memory| {
            let half = node.max.map_or(0, |max| max / 2);
            i128::from(node.used) - i128::from(half)
        };
        Ok(nodes.into_iter().max_by_key(beyond_half))
    }

    async fn sample(&self, node: &str, position: u64) -> Result<Sample> {
        let scan = redis::cmd("SCAN")
            .arg(position)
            .arg(("COUNT", KEYS))
            .to_owned();
        let (next, keys): (u64, Vec<Vec<u8>>) = self.link.command_on(node, &scan).await?;
        let ids: Vec<UploadId> = keys
            .iter()
            .filter_map(|key| self.id_of_record(key))
            .collect();
        let read = stream::iter(ids).map(|id| self.read_complete(id));
        let uploads = read.buffer_unordered(CONCURRENCY);
        let uploads = uploads.try_filter_map(|upload| async { Ok(upload) });
        Ok(Sample {
            uploads: uploads.try_collect().await?,
            next,
        })
    }

    async fn remove(&self, upload: &Upload) -> Result<bool> {
        // If this call ends early, the next sample has the record again, and its entries are not left without a record.
        self.unindex(upload).await?;
        let mut invocation = self.keyed(&SCRIPTS.remove, &upload.id);
        invocation.arg(upload.version);
        if self.link.script::<bool>(&invocation).await? {
            return Ok(true);
        }
        // It has changed, so it stays.
        if let Some(current) = self.read_summary(&upload.id).await? {
            self.index(&current).await?;
        }
        Ok(false)
    }
}

// === impl Redis ===

impl Redis {
    fn id_of_record(&self, key: &[u8]) -> Option<UploadId> {
        let key = std::str::from_utf8(key).ok()?;
        let tagged = key.strip_prefix(&self.key("upload:{"))?;
        tagged.split_once("}:")?.1.parse().ok()
    }

    /// The upload with this id, if it is COMPLETE.
    async fn read_complete(&self, id: UploadId) -> Result<Option<Upload>> {
        match self.read_summary(&id).await {
            Ok(upload) => Ok(upload.filter(|upload| upload.phase == Phase::Complete)),
            Err(error) if error.is_retryable() => Err(error),
            // Its callers get the same error.
            Err(_) => Ok(None),
        }
    }
}

/// What each server in a reply to INFO says of its memory; a Cluster's reply holds one text for each node, by its address.
fn memories(node: String, report: &Value) -> Vec<Memory> {
    if let Value::Map(nodes) = report {
        let each = nodes.iter().map(|(address, text)| {
            let address = from_redis_value(address.clone()).unwrap_or_default();
            memories(address, text)
        });
        return each.flatten().collect();
    }
    let text: String = from_redis_value(report.clone()).unwrap_or_default();
    let number = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.trim().parse::<u64>().ok())
    };
    let used = number("used_memory:");
    let max = number("maxmemory:").filter(|max| *max > 0);
    used.map(|used| Memory { node, used, max })
        .into_iter()
        .collect()
}
