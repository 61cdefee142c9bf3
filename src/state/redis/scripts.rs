//! The Lua scripts. Lua stores and compares; Rust decides.

use std::sync::LazyLock;

use redis::Script;

use super::record::{FORMAT, NEVER, PIECE};
use crate::state::slot::{
    BARE_CLAIM, CLAIM_SLOT, CRC64_MARK, HAS_BLOCK_ID, HAS_LONG_RECEIPT, HAS_MD5, PART_SLOT,
    SIGNED_CLAIM,
};

/// The scripts, each hashed once.
pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(Scripts::default);

/// One script for each operation that must be atomic.
pub(super) struct Scripts {
    pub(super) create: Script,
    pub(super) uncreate: Script,
    pub(super) take_over: Script,
    pub(super) record_parts: Script,
    pub(super) claim: Script,
    pub(super) update: Script,
    /// The same as `update`, for the end of an upload.
    pub(super) end: Script,
    pub(super) compact: Script,
    pub(super) remove: Script,
    pub(super) read: Script,
    pub(super) summary: Script,
    pub(super) index: Script,
    pub(super) entries: Script,
    pub(super) reserve: Script,
    pub(super) due: Script,
    pub(super) repair_due: Script,
    pub(super) lease: Script,
    pub(super) replace: Script,
}

// === impl Scripts ===

impl Default for Scripts {
    fn default() -> Self {
        Self {
            create: record_script(include_str!("create.lua")),
            uncreate: in_full_memory(&record_text(include_str!("uncreate.lua"))),
            take_over: record_script(include_str!("take_over.lua")),
            record_parts: record_script(include_str!("record_parts.lua")),
            claim: record_script(include_str!("claim.lua")),
            update: record_script(include_str!("update.lua")),
            end: in_full_memory(&record_text(include_str!("update.lua"))),
            compact: in_full_memory(&record_text(include_str!("compact.lua"))),
            remove: in_full_memory(&record_text(include_str!("remove.lua"))),
            read: record_script(include_str!("read.lua")),
            summary: record_script(include_str!("summary.lua")),
            index: in_full_memory(include_str!("index.lua")),
            entries: in_full_memory(include_str!("entries.lua")),
            reserve: in_full_memory(include_str!("reserve.lua")),
            due: Script::new(include_str!("due.lua")),
            repair_due: in_full_memory(include_str!("repair_due.lua")),
            lease: in_full_memory(include_str!("lease.lua")),
            replace: in_full_memory(include_str!("replace.lua")),
        }
    }
}

impl Scripts {
    /// All scripts, to load them on a new connection.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Script> {
        [
            &self.create,
            &self.uncreate,
            &self.take_over,
            &self.record_parts,
            &self.claim,
            &self.update,
            &self.end,
            &self.compact,
            &self.remove,
            &self.read,
            &self.summary,
            &self.index,
            &self.entries,
            &self.reserve,
            &self.due,
            &self.repair_due,
            &self.lease,
            &self.replace,
        ]
        .into_iter()
    }
}

/// A script that reads or writes a record, and refuses one in another format.
fn record_script(body: &str) -> Script {
    Script::new(&record_text(body))
}

fn record_text(body: &str) -> String {
    let prelude = include_str!("prelude.lua");
    format!(
        "local FORMAT, PART, CLAIM, PIECE, NEVER = '{FORMAT}', {PART_SLOT}, {CLAIM_SLOT}, {PIECE}, {NEVER}\n\
         local HAS_MD5, HAS_LONG_RECEIPT, HAS_BLOCK_ID = {HAS_MD5}, {HAS_LONG_RECEIPT}, {HAS_BLOCK_ID}\n\
         local CRC64_MARK = {CRC64_MARK}\n\
         local BARE_CLAIM, SIGNED_CLAIM = {BARE_CLAIM}, {SIGNED_CLAIM}\n\
         {prelude}{body}"
    )
}

/// A script that runs although the memory of the server is full. It makes room, or is needed to make room, and writes
/// little.
fn in_full_memory(text: &str) -> Script {
    Script::new(&format!("#!lua flags=allow-oom\n{text}"))
}
