//! The embedded S3, spoken to through the official SDK, plain HTTP and, for what a crash leaves, its directory.

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

mod access;
mod crash;
mod format;
mod kill;
mod objects;
mod server;
mod uploads;
