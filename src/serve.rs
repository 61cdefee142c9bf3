//! The server process: it binds the listeners, connects the stores, serves until it is stopped, and drains.

mod admission;
mod backends;
mod calls;
mod clock;
mod error;
mod expiry;
mod health;
mod once;
mod operations;
mod record_key;
mod server;
mod sweeper;

pub(crate) use self::backends::redis_config;
pub use self::{
    backends::{Backends, connect, connect_state, connect_storage},
    clock::SystemClock,
    error::ServeError,
    once::{adopt, restore, sweep_once},
    server::Server,
};
