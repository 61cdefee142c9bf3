//! Stores that lie: each call of each way in which a file gets in is answered wrongly, in every way that a store or
//! what is in front of it can be wrong. The object must equal what was sent at the end, after plain resumes at most, and
//! nothing may have been destroyed.
//!
//! `make lies`, or `cargo test --test lies -- --full [--store NAME] [--only TEXT]`. Without `--full`, as in `make test`,
//! there is one run for each lie about each call of each store.

#![allow(clippy::unwrap_used, reason = "a failure fails the run")]
#![allow(clippy::print_stdout, reason = "the report is printed")]

#[path = "../common/lib.rs"]
mod common;

mod browser;
mod failed;
mod matrix;
mod paths;
mod report;
mod run;
mod sender;
mod trials;
mod world;

use std::{env, error::Error, process::ExitCode};

use self::{
    common::{layer, lie},
    matrix::{Scope, run as run_matrix},
    world::StoreKind,
};

/// The name by which `cargo test FILTER` finds the short form.
const NAME: &str = "no_single_lie_destroys_or_loses_a_file";

fn main() -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let Some(scope) = scope(env::args().skip(1))? else {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out");
        return Ok(ExitCode::SUCCESS);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let results = runtime.block_on(Box::pin(run_matrix(scope)));
    report::print(&results);
    let is_ok = results.is_ok();
    let (word, passed) = if is_ok { ("ok", 1) } else { ("FAILED", 0) };
    let failed = 1 - passed;
    println!("test {NAME} ... {word}");
    println!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    Ok(if is_ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Reads the command line. `None`: the filter of `cargo test` names another test. Options of other test programs are
/// accepted and ignored.
fn scope(mut words: impl Iterator<Item = String>) -> Result<Option<Scope>, String> {
    let mut scope = Scope {
        stores: Vec::new(),
        short: true,
        only: None,
    };
    let mut filters: Vec<String> = Vec::new();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--full" => scope.short = false,
            "--only" => scope.only = Some(value()?),
            "--store" => {
                let name = value()?;
                let known = StoreKind::ALL
                    .into_iter()
                    .find(|kind| kind.to_string() == name);
                scope
                    .stores
                    .push(known.ok_or(format!("--store: {name} is unknown"))?);
            }
            option if option.starts_with("--") => {}
            _ => filters.push(word),
        }
    }
    if scope.stores.is_empty() {
        let is_asked = |kind: &StoreKind| !scope.short || kind.is_in_process();
        scope.stores = StoreKind::ALL.into_iter().filter(is_asked).collect();
    }
    let is_asked = |filter: &String| NAME.contains(filter.as_str());
    let is_named = filters.is_empty() || filters.iter().any(is_asked);
    Ok(is_named.then_some(scope))
}
