//! The state store loses acknowledged writes, and resume tokens restore them: over the embedded S3, a strict S3 server
//! and Azurite, with a Redis that is flushed or rolled back.

mod keys;
mod rebuilt;
mod refused;
mod rolled_back;
mod running;
mod sender;

use crate::common::{self, signing_client as client, stores};

/// Makes one test of each case for each store.
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
