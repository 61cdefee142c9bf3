//! The broken set-ups of docs/cli.md: each one is made with real servers, and `doctor` prints what the page says.

mod azure;
mod others;
mod redis;
mod s3;

use std::{any::Any, collections::BTreeMap, fs, process::Stdio};

use futures::{StreamExt, stream};
use tempfile::TempDir;

use crate::common::binary;

const PAGE: &str = include_str!("../../../docs/cli.md");

/// The first line of the table.
const HEAD: &str = "| set-up | `doctor` prints | key |";

/// How many set-ups are checked at the same time.
const CONCURRENCY: usize = 4;

/// The debug text of Rust, XML, and the secrets of all servers.
const FORBIDDEN: [&str; 15] = [
    "Some(",
    "(None",
    "None,",
    "Err(",
    "Ok(",
    "Error {",
    "kind:",
    "(Connect)",
    "\\n",
    "<?xml",
    "<Error>",
    "</",
    "hunter2",
    "test-secret-key",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1",
];

/// A set-up: a configuration, and how `doctor` is called with it.
#[derive(Debug)]
struct Setup {
    /// Its name on the page.
    name: &'static str,
    toml: String,
    arguments: Vec<String>,
    /// A program that runs `doctor`, with its arguments.
    within: Vec<String>,
    /// Whether it can be made on this machine.
    is_possible: bool,
}

/// Set-ups, and the servers that they need.
#[derive(Default)]
struct Setups {
    all: Vec<Setup>,
    servers: Vec<Box<dyn Any + Send>>,
}

/// A row of the page.
#[derive(Debug)]
struct Row {
    /// `FAIL`, `WARN`, `skip`, or `error` for an invalid configuration.
    label: &'static str,
    /// The pieces of what is printed.
    prints: Vec<&'static str>,
    key: String,
}

// === impl Setups ===

impl Setups {
    fn add(&mut self, name: &'static str, toml: impl Into<String>) {
        self.add_with(name, toml, &[]);
    }

    fn add_with(&mut self, name: &'static str, toml: impl Into<String>, arguments: &[&str]) {
        self.all.push(Setup {
            name,
            toml: toml.into(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            within: Vec::new(),
            is_possible: true,
        });
    }

    /// Keeps a server running until all set-ups were checked.
    fn keep(&mut self, server: impl Any + Send) {
        self.servers.push(Box::new(server));
    }

    fn extend(&mut self, other: Self) {
        self.all.extend(other.all);
        self.servers.extend(other.servers);
    }
}

// === impl Setup ===

impl Setup {
    /// The exit code and everything that is printed.
    async fn doctor(&self) -> (Option<i32>, String) {
        let directory = TempDir::new().unwrap();
        let config = directory.path().join("gateway.toml");
        fs::write(&config, &self.toml).unwrap();
        let binary = tokio::process::Command::from(binary());
        let program = binary.as_std().get_program().to_owned();
        let mut command = match &self.within[..] {
            [] => binary,
            [wrapper, rest @ ..] => {
                let mut command = tokio::process::Command::new(wrapper);
                command.args(rest).arg(program);
                command
            }
        };
        command.args(["doctor", "--config"]).arg(&config);
        if !self.toml.contains("data_dir") {
            command.arg("--data-dir").arg(directory.path().join("data"));
        }
        let output = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let printed = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), printed.concat())
    }

    /// What is wrong with what `doctor` prints.
    async fn problem(&self, row: &Row) -> Option<String> {
        let (code, printed) = self.doctor().await;
        let expected = match row.label {
            "FAIL" => 1,
            "error" => 64,
            _ => 0,
        };
        let unwanted = FORBIDDEN.iter().find(|text| printed.contains(**text));
        let problem = match unwanted {
            Some(unwanted) => format!("prints {unwanted}"),
            None if code != Some(expected) => format!("ends with {code:?}"),
            None if !row.is_in(&printed) => format!("does not print {row:?}"),
            None => return None,
        };
        Some(format!("{} {problem}:\n{printed}", self.name))
    }
}

// === impl Row ===

impl Row {
    /// The rows of the page, by the name of the set-up.
    fn all() -> BTreeMap<&'static str, Self> {
        let lines = PAGE.lines().skip_while(|line| *line != HEAD).skip(2);
        let rows = lines.take_while(|line| line.starts_with('|')).map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [name, prints, key] = cells[..] else {
                panic!("three cells: {line}");
            };
            let (label, prints) = prints.split_once(' ').unwrap();
            let row = Self {
                label: label.trim_matches('`'),
                prints: prints.split('…').map(str::trim).collect(),
                key: key.trim_matches('`').replace("\\|", "|"),
            };
            (name, row)
        });
        rows.collect()
    }

    /// Whether a result and its advice are printed, the key in the same line or in the next one.
    fn is_in(&self, printed: &str) -> bool {
        let lines: Vec<_> = printed.lines().collect();
        let has_all = |line: &str| {
            let mut rest = line;
            self.prints
                .iter()
                .all(|piece| match rest.split_once(piece) {
                    Some((_, after)) => {
                        rest = after;
                        true
                    }
                    None => false,
                })
        };
        lines.iter().enumerate().any(|(index, line)| {
            let advice = lines
                .get(index + 1)
                .filter(|next| next.starts_with("      "));
            let has_key =
                line.contains(&self.key) || advice.is_some_and(|next| next.contains(&self.key));
            line.starts_with(self.label) && has_all(line) && has_key
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_set_up_of_the_page_is_named_with_its_cause_and_its_key() {
    let mut setups = others::setups();
    for group in [
        redis::setups().await,
        s3::setups().await,
        azure::setups().await,
    ] {
        let Some(group) = group else { return };
        setups.extend(group);
    }
    let rows = Row::all();
    assert!(rows.len() >= 25, "{}", rows.len());
    let mut names: Vec<_> = setups.all.iter().map(|setup| setup.name).collect();
    names.sort_unstable();
    assert_eq!(names, rows.keys().copied().collect::<Vec<_>>());

    let (possible, impossible): (Vec<_>, Vec<_>) =
        setups.all.iter().partition(|setup| setup.is_possible);
    for setup in impossible {
        println!("SKIPPED {}: this machine does not permit it", setup.name);
    }
    let problems = stream::iter(possible)
        .map(|setup| setup.problem(&rows[setup.name]))
        .buffer_unordered(CONCURRENCY)
        .filter_map(async |problem| problem);
    let problems: Vec<_> = problems.collect().await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
