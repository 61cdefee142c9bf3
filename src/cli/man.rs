//! `man`: manual pages.

use std::{fs, path::PathBuf};

use clap_mangen::Man;

use super::{error::CliError, output};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The command whose page is printed [default: the program]
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
    /// Write the pages of all commands into this directory, which is made if it does not exist
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

/// Prints the page of `program` or of one of its commands, or writes all.
pub(super) fn run(arguments: &Arguments, mut program: clap::Command) -> Result<(), CliError> {
    // Gives the commands their whole names, "upload-gateway put".
    program.build();
    if let Some(directory) = &arguments.dir {
        let written = fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(program, directory));
        let failed =
            |error| CliError::input_output(format!("write to {}", directory.display()), error);
        return written.map_err(failed);
    }
    let command = match &arguments.command {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
            CliError::failed(format!(
                "no command {name}; `upload-gateway help` lists them"
            ))
        })?,
    };
    let mut page = Vec::new();
    let rendered = Man::new(command).render(&mut page);
    rendered.map_err(|error| CliError::input_output("make the page", error))?;
    output::write(&page)
}
