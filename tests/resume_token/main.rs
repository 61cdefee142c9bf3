//! The state store loses what it acknowledged, and resume tokens bring it back: over the embedded S3, a strict S3 server
//! and Azurite, with a Redis that is flushed or put back to what it was.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "../common/lib.rs"]
mod common;

#[path = "../signing/client.rs"]
#[allow(dead_code, reason = "a part is enough here")]
mod client;

#[path = "../signing/stores.rs"]
#[allow(dead_code, reason = "a part is enough here")]
mod stores;

mod healed;
mod keys;
mod rebuilt;
mod refused;
mod running;
mod sender;

/// Stamps each case for each store.
macro_rules! for_each_store {
    ($($case:ident),* $(,)?) => {
        mod embedded { $(
            #[tokio::test]
            async fn $case() {
                let Some(deployment) = crate::sender::embedded().await else { return };
                super::$case(deployment).await;
            }
        )* }
        mod s3 { $(
            #[tokio::test]
            async fn $case() {
                let Some(deployment) = crate::sender::s3().await else { return };
                super::$case(deployment).await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $case() {
                let Some(deployment) = crate::sender::azure().await else { return };
                super::$case(deployment).await;
            }
        )* }
    };
}

pub(crate) use for_each_store;
