//! The sweeper: what it gives up, what it leaves alone, and who sweeps. The stores are real, the gateways' clocks are the
//! tests' own; the stores' clocks are not.

mod aborted;
mod clocks;
mod commits;
mod expiry;
mod process;
mod sessions;
mod sweepers;

use crate::{common, world};

/// Stamps each case for each store.
macro_rules! for_each_store {
    ($($case:ident),* $(,)?) => {
        mod embedded { $(
            #[tokio::test]
            async fn $case() {
                crate::world::in_time(super::$case(crate::world::embedded().await)).await;
            }
        )* }
        mod s3 { $(
            #[tokio::test]
            async fn $case() {
                let Some(world) = crate::world::s3().await else { return };
                crate::world::in_time(super::$case(world)).await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $case() {
                let Some(world) = crate::world::azure().await else { return };
                crate::world::in_time(super::$case(world)).await;
            }
        )* }
    };
}

pub(crate) use for_each_store;
