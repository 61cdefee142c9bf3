//! The scripts: Lua stores, Rust decides.

use std::sync::LazyLock;

use redis::Script;

/// The scripts, each hashed once.
pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(Scripts::default);

/// One script per operation that must be one step.
pub(super) struct Scripts {
    pub(super) create: Script,
    pub(super) take_over: Script,
    pub(super) record_parts: Script,
    pub(super) claim: Script,
    pub(super) update: Script,
    pub(super) summary: Script,
    pub(super) index: Script,
    pub(super) due: Script,
    pub(super) repair_due: Script,
    pub(super) lease: Script,
}

// === impl Scripts ===

impl Default for Scripts {
    fn default() -> Self {
        Self {
            create: Script::new(include_str!("create.lua")),
            take_over: Script::new(include_str!("take_over.lua")),
            record_parts: Script::new(include_str!("record_parts.lua")),
            claim: Script::new(include_str!("claim.lua")),
            update: Script::new(include_str!("update.lua")),
            summary: Script::new(include_str!("summary.lua")),
            index: Script::new(include_str!("index.lua")),
            due: Script::new(include_str!("due.lua")),
            repair_due: Script::new(include_str!("repair_due.lua")),
            lease: Script::new(include_str!("lease.lua")),
        }
    }
}

impl Scripts {
    /// All of them, to be loaded beforehand.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Script> {
        [
            &self.create,
            &self.take_over,
            &self.record_parts,
            &self.claim,
            &self.update,
            &self.summary,
            &self.index,
            &self.due,
            &self.repair_due,
            &self.lease,
        ]
        .into_iter()
    }
}
