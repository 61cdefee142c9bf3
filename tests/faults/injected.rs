//! Faults on demand, and what they prove: whatever is killed, lost or cut at whatever moment, an upload ends with exactly
//! the bytes that were sent, or with an error that says so. Real Redis, a strict S3 server and Azurite.

mod answers;
mod commit;
mod header;
mod kill;
mod stores;
mod takeover;

use crate::common::{self, proxy, signing_client as client};

/// Stamps each case for each store.
macro_rules! for_each_store {
    ($($case:ident),* $(,)?) => {
        mod s3 { $(
            #[tokio::test]
            async fn $case() {
                let Some(stores) = crate::injected::stores::s3().await else { return };
                Box::pin(super::$case(stores)).await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $case() {
                let Some(stores) = crate::injected::stores::azure().await else { return };
                Box::pin(super::$case(stores)).await;
            }
        )* }
    };
}

pub(crate) use for_each_store;
