//! The server process: it binds the listeners, connects the stores, serves until it is stopped, and drains.

mod admission;
mod adoption;
mod backends;
mod clock;
mod error;
mod health;
mod operations;
mod scope;
mod server;
mod sweeper;

pub use self::{
    adoption::adopt,
    backends::{Backends, connect, connect_state, connect_storage},
    clock::SystemClock,
    error::ServeError,
    server::Server,
    sweeper::sweep_once,
};
