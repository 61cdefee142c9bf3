//! The process: command line, configuration, drain and overload; also the direction of imports in its source.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "../common/lib.rs"]
mod common;

mod architecture;
mod authentication;
mod backends;
mod changes;
mod cli;
mod client;
mod commands;
mod config;
mod connecting;
mod descriptors;
mod direct;
mod doctor;
mod downloads;
mod drain;
mod killed_copies;
mod killed_puts;
mod log_lines;
mod many_files;
mod metrics;
mod overload;
mod page_rules;
mod profiles;
mod proxies;
mod redis_user;
mod resuming;
mod secrets;
mod stream_age;
mod terminals;
mod traces;
