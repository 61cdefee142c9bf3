//! The state store loses what it acknowledged, and resume tokens bring it back: over the embedded S3, a strict S3 server
//! and Azurite, with a Redis that is flushed or put back to what it was.

mod healed;
mod keys;
mod rebuilt;
mod refused;
mod running;
mod sender;

use crate::common::{self, signing_client as client, stores};

/// Stamps each case for each store.
macro_rules! for_each_store {
    ($($case:ident),* $(,)?) => {
        mod embedded { $(
            #[tokio::test]
            async fn $case() {
                let Some(deployment) = crate::resume_token::sender::embedded().await else { return };
                super::$case(deployment).await;
            }
        )* }
        mod s3 { $(
            #[tokio::test]
            async fn $case() {
                let Some(deployment) = crate::resume_token::sender::s3().await else { return };
                super::$case(deployment).await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $case() {
                let Some(deployment) = crate::resume_token::sender::azure().await else { return };
                super::$case(deployment).await;
            }
        )* }
    };
}

pub(crate) use for_each_store;
