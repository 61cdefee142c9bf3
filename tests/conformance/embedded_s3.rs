//! The embedded S3, through the official SDK, plain HTTP and, for the traces of crashes, its directory.

mod access;
mod browsers;
mod checksums;
mod crash;
mod format;
mod kill;
mod objects;
mod server;
mod uploads;
