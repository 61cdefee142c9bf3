//! The embedded S3, spoken to through the official SDK, plain HTTP and, for what a crash leaves, its directory.

mod access;
mod crash;
mod format;
mod kill;
mod objects;
mod server;
mod uploads;
