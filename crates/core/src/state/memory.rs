//! The port to the memory of the state store, which records of COMPLETE uploads must not fill.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::{error::Result, upload::Upload};

/// How much memory records use, and removing records from it. A store that keeps its records elsewhere needs no method.
#[async_trait]
pub trait MemoryStore: Send + Sync + Debug {
    /// The memory of the node that has the least left. `None` if records are not kept in memory.
    async fn memory(&self) -> Result<Option<Memory>> {
        Ok(None)
    }

    /// Some COMPLETE uploads on a node, as [`summary`](super::RecordStore::summary) reads them. Starts at `position`, which is 0
    /// or from an earlier sample; each step costs the same, however many records there are, and can find no upload. Once
    /// around, every record was seen that was there all the time.
    async fn sample(&self, node: &str, position: u64) -> Result<Sample> {
        let _ = (node, position);
        Ok(Sample::default())
    }

    /// Removes the record of a COMPLETE upload with all entries in listings and indexes, if the stored version is
    /// `upload.version`. Returns whether there is no such record now. Succeeds even if the store is full.
    async fn remove(&self, upload: &Upload) -> Result<bool> {
        let _ = upload;
        Ok(false)
    }
}

/// The memory of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// The node, for [`MemoryStore::sample`].
    pub node: String,
    /// What it uses, in bytes.
    pub used: u64,
    /// The most that it can use, in bytes. `None`: not limited.
    pub max: Option<u64>,
}

/// Some COMPLETE uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// The uploads.
    pub uploads: Vec<Upload>,
    /// Where the next sample starts; 0 if all records were seen.
    pub next: u64,
}

// === impl Memory ===

impl Memory {
    /// The most that it may use before records are removed, in bytes: `configured`, or half of the largest. `None`: any.
    pub fn limit(&self, configured: Option<u64>) -> Option<u64> {
        configured.or(self.max.map(|max| max / 2))
    }
}
