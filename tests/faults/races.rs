//! Races: another replica, a client or the sweeper acts exactly between two steps of the gateway. The stores are real.

pub(crate) mod completions;
mod forgotten;
pub(crate) mod interrupted;
mod verification;

use crate::{
    common,
    world::{self, for_each_store},
};
