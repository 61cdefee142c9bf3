//! The question before something is deleted.

use std::io::{self, IsTerminal, Write};

use super::{error::CliError, output};

/// How a command treats what it deletes.
#[derive(Debug, clap::Args)]
pub(super) struct Confirm {
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask on a terminal
    #[arg(short, long)]
    yes: bool,
}

/// What a command does before it deletes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Delete.
    Proceed,
    /// Ask, and delete if the answer is yes.
    Ask,
    /// Print what would be deleted.
    DryRun,
}

// === impl Confirm ===

impl Confirm {
    /// Asks only on a terminal: other programs and scripts cannot answer.
    pub(super) fn decision(&self) -> Decision {
        self.decide(io::stdin().is_terminal() && io::stderr().is_terminal())
    }

    fn decide(&self, is_terminal: bool) -> Decision {
        match self {
            Self { dry_run: true, .. } => Decision::DryRun,
            Self { yes: false, .. } if is_terminal => Decision::Ask,
            _ => Decision::Proceed,
        }
    }
}

// === impl Decision ===

impl Decision {
    /// Whether to do what `action` says, which begins with a verb. Asks, or prints it, if that is the decision.
    pub(super) fn allows(self, action: &str) -> Result<bool, CliError> {
        match self {
            Self::Proceed => Ok(true),
            Self::DryRun => output::data(format_args!("would {action}")).map(|()| false),
            Self::Ask => ask(&question(action))
                .map_err(|error| CliError::input_output("ask on the terminal", error)),
        }
    }
}

fn question(action: &str) -> String {
    let mut letters = action.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first
        .into_iter()
        .chain(letters)
        .chain("? [y/N] ".chars())
        .collect()
}

fn ask(question: &str) -> io::Result<bool> {
    let mut terminal = io::stderr().lock();
    terminal.write_all(question.as_bytes())?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"]
        .iter()
        .any(|yes| answer.trim().eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_asked_unless_yes_is_given_or_nothing_is_deleted() {
        for (dry_run, yes, on_terminal, elsewhere) in [
            (false, false, Decision::Ask, Decision::Proceed),
            (false, true, Decision::Proceed, Decision::Proceed),
            (true, false, Decision::DryRun, Decision::DryRun),
            (true, true, Decision::DryRun, Decision::DryRun),
        ] {
            let confirm = Confirm { dry_run, yes };
            assert_eq!(confirm.decide(true), on_terminal);
            assert_eq!(confirm.decide(false), elsewhere);
        }
    }

    #[test]
    fn only_yes_is_yes() {
        for answer in ["y\n", "Y", "yes\r\n", " YES "] {
            assert!(is_yes(answer), "{answer}");
        }
        for answer in ["", "\n", "n", "ye", "no", "yes please"] {
            assert!(!is_yes(answer), "{answer}");
        }
        let question = question("delete the file of a.bin");
        assert_eq!(question, "Delete the file of a.bin? [y/N] ");
    }
}
