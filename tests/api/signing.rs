//! Bytes straight to the store, call by call as a client does it: the embedded S3, a strict S3 server and Azurite, with
//! Redis as state for the last two.

mod claims;
mod flow;
mod mixed;
mod requests;

use crate::common::{self, signing_client as client, stores};

/// Stamps each case for each store.
macro_rules! for_each_store {
    ($($case:ident),* $(,)?) => {
        mod embedded { $(
            #[tokio::test]
            async fn $case() {
                super::$case(crate::common::stores::embedded()).await;
            }
        )* }
        mod s3 { $(
            #[tokio::test]
            async fn $case() {
                let Some(stores) = crate::common::stores::s3().await else { return };
                super::$case(stores).await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $case() {
                let Some(stores) = crate::common::stores::azure().await else { return };
                super::$case(stores).await;
            }
        )* }
    };
}

pub(crate) use for_each_store;
