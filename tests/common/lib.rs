//! Shared by the integration tests: real servers, found or started, and stopped when dropped.
//!
//! A test program includes it with `#[path = "../common/lib.rs"] mod common;`, and a test asks for what it needs: `let
//! Some(s3) = common::s3().await else { return };`. Under `make test`, all tests share one server of each kind, and
//! each call returns a new database, bucket or container. Under `cargo test`, the first test that asks starts the
//! server, and it stops after the last one. `private_…` starts a server for one test alone, which may kill or pause it.
//! `None` means that the program is not installed: the skip is printed and counted; with `REQUIRE_BACKENDS=1` it is a
//! panic. Programs are searched in `.tools/bin`, where `tests/backends/install` puts them, then in PATH.

#![allow(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "each test program uses a part of this"
)]
#![allow(unreachable_pub, reason = "public to the test programs")]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod azurite;
mod browsers;
pub mod bucket_policy;
mod certificates;
mod forwarder;
mod front;
mod gateway;
mod gateway_process;
mod issuer;
pub mod layer;
pub mod lie;
mod log;
pub mod memory_azure;
pub mod odd_store;
mod opaque_etags;
mod otelcol;
mod programs;
pub mod proxy;
mod redis_cluster;
mod redis_sentinel;
mod redis_server;
mod redis_tls;
mod resigned;
mod server;
pub mod signing_client;
mod slow_link;
pub mod stores;
mod versitygw;
mod wait;

pub use azurite::{AzureBackend, azure, memory_azure, private_azure};
pub use browsers::{allow_pages, set_account_rule};
pub use certificates::{write_certificates, write_certificates_for};
pub use forwarder::Forwarder;
pub use gateway::{
    Conversation, TestGateway, bytes, chunk, finish, message, open, open_file, open_known, reason,
    s3_client, sdk_http_client, storage,
};
pub use gateway_process::{binary, gateway_process, serve};
pub use issuer::Issuer;
pub use log::Log;
pub use opaque_etags::OpaqueEtags;
pub use otelcol::{Collector, Span, collector};
pub use programs::{Chromium, chromium, command, find, grpcurl, python};
pub use redis_cluster::{RedisCluster, redis_cluster};
pub use redis_sentinel::{
    NAME as SENTINEL_SERVICE, RedisSentinels, redis_sentinel, redis_sentinels,
};
pub use redis_server::{RedisBackend, private_redis, redis, try_query};
pub use redis_tls::{RedisTls, redis_tls, redis_tls_for_clients_with_certificates};
pub use server::{Server, free_port};
pub use slow_link::SlowLink;
pub use versitygw::{S3Backend, private_s3, s3};
pub use wait::{WAIT_TIMEOUT, poll, refused_for_good, until};
