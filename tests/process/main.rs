//! The process: command line, configuration, drain, overload, and how its source is laid out.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "../common/lib.rs"]
mod common;

mod architecture;
mod backends;
mod cli;
mod config;
mod direct;
mod drain;
mod overload;
