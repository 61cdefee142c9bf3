//! Injected faults: at every moment at which something is killed, lost or cut, an upload ends with exactly the bytes
//! that were sent, or with an error. With real Redis, a strict S3 server and Azurite.

mod answers;
mod commit;
mod delete;
mod header;
mod kill;
mod stores;
mod takeover;

use crate::common::{self, proxy, signing_client as client};

/// Makes one test of each case for each store.
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
