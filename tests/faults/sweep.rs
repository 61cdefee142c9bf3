//! The sweeper: what it aborts, what it does not touch, and which replica sweeps. The stores and their clocks are real;
//! the clocks of the gateways are the tests' own.

mod aborted;
mod clocks;
mod commits;
mod deleted;
mod expiry;
mod log;
mod process;
mod sessions;
mod sweepers;

use crate::{
    common,
    world::{self, for_each_store},
};
