//! The adapters of the port [`StateStore`](upload_gateway_core::state::StateStore).

mod entry;
pub mod redb;
pub mod redis;
mod searches;
mod slot;
