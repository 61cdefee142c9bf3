//! Programs that the tests run, and what happens if one is missing.

use std::{
    env,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// A browser, and what drives it.
#[derive(Debug)]
pub struct Chromium {
    /// The browser.
    pub program: PathBuf,
    /// Node.js.
    pub node: PathBuf,
    /// The directory of the packages that `tests/browser/package.json` names.
    pub packages: PathBuf,
}

/// Chromium, and what drives it.
pub fn chromium() -> Option<Chromium> {
    let packages = tools().join("browser");
    let is_installed = packages.join("node_modules/puppeteer-core").is_dir();
    Some(Chromium {
        program: find("chromium")?,
        node: find("node")?,
        packages: is_installed
            .then_some(packages)
            .or_else(|| skip("puppeteer-core"))?,
    })
}

/// The path of `grpcurl`.
pub fn grpcurl() -> Option<PathBuf> {
    find("grpcurl")
}

/// The path of a Python interpreter that can import what `tests/backends/requirements.txt` names.
pub fn python() -> Option<PathBuf> {
    let python = tools().join("venv/bin/python");
    python
        .is_file()
        .then_some(python)
        .or_else(|| skip("Python with its packages"))
}

/// A command for the program called `name`, which finds the programs that it starts itself as [`find`] does.
pub fn command(name: &str) -> Option<Command> {
    let mut command = Command::new(find(name)?);
    command.env("PATH", env::join_paths(search_path()).unwrap());
    Some(command)
}

/// The path of the program `name`. If it is not installed, records the skip and returns `None`.
pub fn find(name: &str) -> Option<PathBuf> {
    search_path()
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .or_else(|| skip(name))
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = env::split_paths(&path).collect();
    std::iter::once(tools().join("bin")).chain(path)
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools")
}

/// Records that the running test is skipped because `what` is missing; `tests/backends/run` counts it.
#[expect(clippy::print_stderr, reason = "a skip has to be seen")]
fn skip<T>(what: &str) -> Option<T> {
    let program = env::current_exe().unwrap();
    let program = program.file_stem().unwrap().to_string_lossy();
    // Cargo appends a hash to the name of the test program.
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let thread = thread::current();
    let line = format!(
        "SKIPPED {program}::{}: no {what}",
        thread.name().unwrap_or("?")
    );
    assert!(
        env::var_os("REQUIRE_BACKENDS").is_none_or(|value| value != "1"),
        "{line}, and REQUIRE_BACKENDS=1 is set"
    );
    eprintln!("{line}");
    if let Some(log) = env::var_os("TEST_SKIP_LOG") {
        let mut log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(log)
            .unwrap();
        // A single write, so that lines of concurrent tests do not mix.
        log.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
    None
}
