//! The commands that Redis receives, from its `MONITOR`: one line per command, including those that scripts run.

use std::{collections::HashMap, pin::Pin};

use futures::{Stream, StreamExt};

use crate::Result;

/// Counts the commands.
pub(crate) struct Commands {
    url: String,
    lines: Pin<Box<dyn Stream<Item = String> + Send>>,
}

/// Numbers of commands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// All commands.
    pub(crate) all: u64,
    /// The most frequent command or script: the one that records a part.
    pub(crate) commonest: u64,
}

impl Commands {
    pub(crate) async fn watch(url: &str) -> Result<Self> {
        let monitor = redis::Client::open(url)?.get_async_monitor().await?;
        Ok(Self {
            url: url.to_owned(),
            lines: monitor.into_on_message().boxed(),
        })
    }

    /// The numbers since the start.
    pub(crate) async fn end(&mut self) -> Result<Counts> {
        const LAST: &str = "the end of the watch";
        let mut connection = redis::Client::open(self.url.as_str())?
            .get_multiplexed_async_connection()
            .await?;
        redis::cmd("ECHO")
            .arg(LAST)
            .exec_async(&mut connection)
            .await?;
        let mut counts: HashMap<String, u64> = HashMap::new();
        while let Some(line) = self.lines.next().await {
            if line.contains(LAST) {
                break;
            }
            if let Some(command) = from_client(&line) {
                *counts.entry(command).or_default() += 1;
            }
        }
        Ok(Counts {
            all: counts.values().sum(),
            commonest: counts.into_values().max().unwrap_or_default(),
        })
    }
}

/// The command of a line such as `1700000000.123456 [0 127.0.0.1:40000] "EVALSHA" "<digest>" …`, and the script's digest.
/// `None` if a script ran it (`[0 lua]`), or for the handshake of a connection.
fn from_client(line: &str) -> Option<String> {
    let (source, command) = line.split_once("] ")?;
    let mut words = command.split(' ');
    let name = words.next()?.trim_matches('"').to_ascii_lowercase();
    if source.ends_with(" lua") || ["client", "hello", "select"].contains(&name.as_str()) {
        return None;
    }
    match name.as_str() {
        "evalsha" => words.next().map(|digest| format!("{name} {digest}")),
        _ => Some(name),
    }
}
