//! What happens between two steps of the gateway: another replica, a client or the sweeper acts exactly there. The stores
//! are real.

mod completions;
mod interrupted;
mod judgements;

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
