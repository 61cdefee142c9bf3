//! Whether and with which command an upload that did not complete is resumed.

use upload_gateway_client::{ClientError, proto::v1::ErrorReason};

use crate::cli::error::CliError;

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
pub(super) fn upload_id(error: &CliError) -> Option<&str> {
    match error {
        CliError::Client(ClientError::NoProgress { upload_id, .. }) => upload_id.as_deref(),
        _ => None,
    }
}

/// The words of a command as a line for a shell.
pub(super) fn shell_line(words: impl IntoIterator<Item = String>) -> String {
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
