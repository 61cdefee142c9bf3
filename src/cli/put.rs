//! `put`: uploads files or standard input.

mod arguments;
mod files;
mod one;
mod outcome;
mod resume;
mod running;

use std::sync::Arc;

use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
};

pub(super) use self::arguments::Arguments;
use self::{
    files::{Candidate, Found},
    one::{Begun, Input, Sender},
    outcome::Outcomes,
};
use super::{
    error::CliError,
    find::find_id,
    interrupt::Interrupts,
    progress::{Display, Files},
};

const DIRECT_NEEDS_A_FILE: &str = "--direct reads a regular file of known size more than once, which standard input, a pipe \
    or a file of the kernel is not; omit --direct, or name another file";

pub(super) async fn run(mut arguments: Arguments) -> Result<(), CliError> {
    arguments.check()?;
    let mut interrupts = Interrupts::listen()
        .map_err(|error| CliError::input_output("listen for signals", error))?;
    let only = match arguments.only_file() {
        // What is wrong with it is reported before a gateway is looked for.
        Some(file) => Some((one::open_checked(&arguments, &file).await?, file)),
        None => None,
    };
    let client = tokio::select! {
        client = arguments.server.retrying_client(arguments.wait) => client?,
        signal = interrupts.next() => return Err(CliError::Interrupted(signal)),
    };
    if let Some(beginning) = &arguments.resume {
        arguments.resume = Some(find_id(&client, beginning).await?);
    }
    let files = match &only {
        Some(_) => Files::One,
        None => Files::Many,
    };
    let display = Display::new(files, arguments.json);
    let sender = Sender::new(client, arguments, display);
    match only {
        Some((input, file)) => put_one(&sender, &file, input, &mut interrupts).await,
        None => put_many(Arc::new(sender), &mut interrupts).await,
    }
}

async fn put_one(
    sender: &Sender,
    file: &Candidate,
    input: Input,
    interrupts: &mut Interrupts,
) -> Result<(), CliError> {
    let mut begun = Begun::default();
    sender.display.expect(file.size);
    let sent = tokio::select! {
        sent = sender.send(file, Some(input), &mut begun) => sent,
        signal = interrupts.next() => Err(CliError::Interrupted(signal)),
    };
    sender.display.clear();
    match sent {
        Ok(sent) => outcome::show_one(&sender.display, file, &sent, sender.arguments.json),
        Err(error) => {
            resume::explain(&sender.arguments, &begun, &error);
            Err(error)
        }
    }
}

/// Sends the files that are found, several at once.
async fn put_many(sender: Arc<Sender>, interrupts: &mut Interrupts) -> Result<(), CliError> {
    let found = sender.arguments.selection().find(sender.display.clone());
    let outcomes = Arc::new(Outcomes::default());
    let found = Arc::new(Mutex::new(found));
    let mut senders = JoinSet::new();
    for _ in 0..sender.arguments.parallel.get() {
        let (sender, found) = (Arc::clone(&sender), Arc::clone(&found));
        let outcomes = Arc::clone(&outcomes);
        senders.spawn(async move { send_found(&sender, &found, &outcomes).await });
    }
    let ended = loop {
        tokio::select! {
            ended = senders.join_next() => match ended {
                Some(Ok(Ok(()))) => {}
                // The others would fail, too.
                Some(Ok(Err(error))) => break Err(error),
                Some(Err(panic)) => break Err(CliError::failed(panic.to_string())),
                None => break Ok(()),
            },
            signal = interrupts.next() => break Err(CliError::Interrupted(signal)),
        }
    };
    senders.shutdown().await;
    sender.display.clear();
    outcomes.summarize(&sender.display);
    match ended {
        Ok(()) => outcomes.result(),
        Err(error) => {
            if resume::can_resume(&error) {
                sender.display.log(match sender.arguments.again {
                    false => "the same command again sends what is missing",
                    true => "the same command without --again sends what is missing",
                });
            }
            Err(error)
        }
    }
}

/// Sends one file after the other.
///
/// # Errors
/// A failure that all other files would have, too.
async fn send_found(
    sender: &Sender,
    found: &Mutex<mpsc::Receiver<Found>>,
    outcomes: &Outcomes,
) -> Result<(), CliError> {
    let json = sender.arguments.json;
    let next = async || found.lock().await.recv().await;
    while let Some(next) = next().await {
        match next {
            Found::File(file) => {
                match Box::pin(sender.send(&file, None, &mut Begun::default())).await {
                    Ok(sent) => outcomes.sent(&sender.display, &file, &sent, json)?,
                    Err(error) if outcome::ends_all(&error) => return Err(error),
                    Err(error) => outcomes.failed(&sender.display, &file.path, &error, json)?,
                }
            }
            Found::Skipped { path, why } => outcomes.skipped(&sender.display, &path, why),
            Found::Failed { path, error } => {
                outcomes.failed(&sender.display, &path, &error, json)?;
            }
        }
    }
    Ok(())
}
