//! The adapters of the port [`StateStore`](upload_gateway_core::state::StateStore).

pub mod redb;
pub mod redis;
mod slot;
