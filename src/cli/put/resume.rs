//! Whether and with which command an upload that did not complete is resumed.

use std::env;

use upload_gateway_client::{ClientError, Refusal, proto::v1::ErrorReason};

use super::{Arguments, one::Begun};
use crate::cli::{error::CliError, output};

/// Explains how to continue after an error of the only file, unless that would fail again.
pub(super) fn explain(arguments: &Arguments, begun: &Begun, error: &CliError) {
    if let CliError::Client(ClientError::Refused(refusal)) = error
        && refusal.reason == Some(ErrorReason::WriterActive)
    {
        return explain_active_writer(refusal);
    }
    let id = begun.upload_id.as_deref().or(upload_id(error));
    let id = id.or(arguments.resume.as_deref());
    let Some(id) = id.filter(|_| can_resume(error)) else {
        return;
    };
    if begun.is_kept && arguments.resume.is_none() {
        let words = env::args_os().map(|word| word.to_string_lossy().into_owned());
        // It would begin again.
        let words = words.filter(|word| word != "--again");
        output::log("what was sent is kept: run the same command again to resume");
        return output::log(format_args!("Resume with: {}", shell_line(words)));
    }
    let is_pipe = arguments.paths.iter().any(|path| path.as_os_str() == "-");
    let same_input = if is_pipe { " the same input and" } else { "" };
    output::log("the committed parts are kept");
    output::log(format_args!(
        "Resume with{same_input}: {}",
        shell_line(resume_command(arguments, id))
    ));
}

/// Explains the refusal of an upload on which another sender is active.
fn explain_active_writer(refusal: &Refusal) {
    let left = refusal.retry_delay.unwrap_or_default().as_secs_f64();
    output::log(format_args!(
        "another sender is active on this upload; if it has stopped, the gateway detects that in {left:.0} s: try again then, \
         or omit --no-takeover to take over now"
    ));
}

/// The words of the command that resumes the upload with this id.
fn resume_command(arguments: &Arguments, id: &str) -> Vec<String> {
    let file = arguments.paths.first().map(|path| path.to_string_lossy());
    let file = match file.unwrap_or_default() {
        // Otherwise it looks like an option.
        file if file.starts_with('-') && file != "-" => format!("./{file}"),
        file => file.into_owned(),
    };
    let program = env::args().next().unwrap_or_default();
    let mut words = vec![program, "put".into(), file];
    words.extend(["--resume".into(), id.into()]);
    words.extend(arguments.server.words());
    if let Some(rate) = arguments.sending.limit_rate {
        words.extend(["--limit-rate".into(), rate.to_string()]);
    }
    let flags = [
        (arguments.sending.no_digest, "--no-digest"),
        (arguments.json, "--json"),
    ];
    let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
    words.extend(flags.map(|(_, flag)| flag.to_owned()));
    words
}

/// Whether the next try can succeed with the same file.
pub(super) fn can_resume(error: &CliError) -> bool {
    match error {
        CliError::Interrupted(_) => true,
        CliError::Client(error) => match error {
            ClientError::NoProgress { .. }
            | ClientError::Source(_)
            | ClientError::NotRewindable { .. }
            | ClientError::Changed { .. }
            | ClientError::Store(_) => true,
            ClientError::Refused(refusal) => {
                let may_pass = matches!(
                    refusal.reason,
                    Some(
                        ErrorReason::TakenOver
                            | ErrorReason::BudgetTooSmall
                            | ErrorReason::Internal
                    )
                );
                may_pass || error.is_resumable()
            }
            _ => false,
        },
        _ => false,
    }
}

/// The upload that could be resumed, if the error names it.
fn upload_id(error: &CliError) -> Option<&str> {
    match error {
        CliError::Client(ClientError::NoProgress { upload_id, .. }) => upload_id.as_deref(),
        _ => None,
    }
}

/// The words of a command as a line for a shell.
fn shell_line(words: impl IntoIterator<Item = String>) -> String {
    let quoted = words.into_iter().map(|word| quote(&word));
    quoted.collect::<Vec<_>>().join(" ")
}

/// A word as a shell reads it.
fn quote(word: &str) -> String {
    let is_plain = |character: char| {
        character.is_alphanumeric() || matches!(character, '/' | '.' | '-' | '_' | ':' | '=' | ',')
    };
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, quoted) in [
            ("/tmp/a-b_c.bin", "/tmp/a-b_c.bin"),
            ("später.bin", "später.bin"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$(rm)", "'$(rm)'"),
            ("", "''"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }
}
