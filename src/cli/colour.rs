//! Whether output has colours.

use std::{env, ffi::OsStr};

use clap::{ColorChoice, ValueEnum};

/// The option that decides it, in place of the terminal and of NO_COLOR.
const OPTION: &str = "--color";

/// What `--color` among these arguments says. The help that is printed while arguments are read has colours, too. An invalid
/// value is reported then.
pub(super) fn choice<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> ColorChoice {
    let mut is_value = false;
    for argument in arguments {
        let Some(argument) = argument.as_ref().to_str() else {
            is_value = false;
            continue;
        };
        let value = match argument.strip_prefix(OPTION) {
            _ if is_value => argument,
            Some(rest) => rest.strip_prefix('=').unwrap_or_default(),
            None => "",
        };
        if let Ok(choice) = ColorChoice::from_str(value, false) {
            return choice;
        }
        is_value = argument == OPTION;
    }
    ColorChoice::Auto
}

/// The choice of this process, for everything that is printed later.
pub(super) fn set() -> ColorChoice {
    let mut choice = choice(env::args_os());
    // clap colours the help for such a terminal if CI is set.
    if choice == ColorChoice::Auto && env::var_os("TERM").is_some_and(|term| term == "dumb") {
        choice = ColorChoice::Never;
    }
    let forced = match choice {
        ColorChoice::Auto => return choice,
        ColorChoice::Always => true,
        ColorChoice::Never => false,
    };
    console::set_colors_enabled(forced);
    console::set_colors_enabled_stderr(forced);
    choice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_found_wherever_it_is() {
        for (arguments, expected) in [
            (&["ls"] as &[&str], ColorChoice::Auto),
            (&["ls", "--color", "never"], ColorChoice::Never),
            (&["--color=always", "ls"], ColorChoice::Always),
            (&["ls", "--color=auto", "--help"], ColorChoice::Auto),
            (&["ls", "never"], ColorChoice::Auto),
            (&["ls", "--color", "blue"], ColorChoice::Auto),
            (&["ls", "--colour=never"], ColorChoice::Auto),
        ] {
            assert_eq!(choice(arguments), expected, "{arguments:?}");
        }
    }
}
