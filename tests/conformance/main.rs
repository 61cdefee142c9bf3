//! Contracts: one suite for every state store, one for every blob store, and the embedded S3 and the domain below them.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "../common/lib.rs"]
mod common;

/// A test of each case for both SDKs; the module has an `Sdk`.
macro_rules! for_both_sdks {
    ($($case:ident)*) => {
        mod s3 {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Sdk::S3).await;
            })*
        }
        mod azure {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Sdk::Azure).await;
            })*
        }
    };
}

mod authorities;
mod blob;
mod embedded_s3;
mod lifecycle;
mod odd_stores;
mod requests;
mod search;
mod signatures;
mod state;
