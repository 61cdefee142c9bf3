//! `config`: shows and changes the file with profiles.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process,
};

use clap::Subcommand;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, value};

use super::{
    error::CliError,
    output,
    profile::{self, DEFAULT_KEY, PATHS, PROFILES, Profile, Profiles},
    table::{Column, Layout},
};
use crate::{config::PROFILE_VARIABLE, private_files};

const COLUMNS: [Column; 4] = [
    Column::left("PROFILE", 0),
    Column::left("SERVER", 0),
    Column::left("STORAGE", 1),
    Column::left("CREDENTIAL", 2),
];

/// The editor of each system.
const EDITOR: &str = if cfg!(windows) { "notepad" } else { "vi" };

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the profiles
    List,
    /// Print the keys of a profile
    Show(Selected),
    /// Set a key of a profile: server, ca, cert, key, token_file, token_command, api_key_file or storage
    Set {
        /// The key
        key: String,
        /// Its value; of token_command a program and its arguments, after --
        #[arg(value_name = "VALUE", required = true)]
        values: Vec<String>,
        #[command(flatten)]
        selected: Selected,
    },
    /// Remove a key of a profile, or the whole profile
    Unset {
        /// The key [default: all]
        key: Option<String>,
        #[command(flatten)]
        selected: Selected,
    },
    /// Use a profile if none is named
    Use {
        /// The profile
        name: String,
    },
    /// Print where the file is
    Path,
    /// Open the file in an editor
    Edit {
        /// The program
        #[arg(long, value_name = "PROGRAM", env = "EDITOR", default_value = EDITOR)]
        editor: String,
    },
}

/// Which profile a command shows or changes.
#[derive(Debug, clap::Args)]
struct Selected {
    /// The profile [default: the default profile]
    #[arg(long, value_name = "NAME", env = PROFILE_VARIABLE)]
    profile: Option<String>,
}

/// The file as it is written.
struct File {
    path: PathBuf,
    document: DocumentMut,
    default_name: String,
}

pub(super) fn run(arguments: Arguments) -> Result<(), CliError> {
    let path = profile::path()?;
    match arguments.action.unwrap_or(Action::List) {
        Action::Path => output::data(path.display()),
        Action::List => list(&Profiles::read()?),
        Action::Edit { editor } => edit(&path, &editor),
        Action::Show(selected) => File::read(path)?.show(&selected),
        Action::Set {
            key,
            values,
            selected,
        } => File::read(path)?.set(&key, &values, &selected),
        Action::Unset { key, selected } => File::read(path)?.unset(key.as_deref(), &selected),
        Action::Use { name } => File::read(path)?.make_default(&name),
    }
}

fn list(profiles: &Profiles) -> Result<(), CliError> {
    let row = |(name, profile): (&String, &Profile)| {
        let is_default = name == profiles.default_name();
        let server = profile.server.as_ref().map(ToString::to_string);
        [
            format!("{name}{}", if is_default { " (default)" } else { "" }),
            server.unwrap_or_default(),
            profile.storage.clone().unwrap_or_default(),
            credentials(profile).join(", "),
        ]
    };
    let rows: Vec<_> = profiles.all().iter().map(row).collect();
    let layout = Layout::new(&COLUMNS, &rows, output::width());
    output::data(layout.header())?;
    rows.iter()
        .try_for_each(|row| output::data(layout.line(row)))
}

/// The keys that set what is presented to the gateway.
fn credentials(profile: &Profile) -> Vec<&'static str> {
    let keys = [
        ("cert", profile.cert.is_some()),
        ("token_file", profile.token_file.is_some()),
        ("token_command", profile.token_command.is_some()),
        ("api_key_file", profile.api_key_file.is_some()),
    ];
    let set = keys.into_iter().filter(|(_, is_set)| *is_set);
    set.map(|(key, _)| key).collect()
}

/// Opens the file in an editor, and checks what it has become.
fn edit(path: &Path, editor: &str) -> Result<(), CliError> {
    if !path.exists() {
        write(path, "")?;
    }
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or(EDITOR);
    let status = process::Command::new(program)
        .args(words)
        .arg(path)
        .status();
    let status = status.map_err(|error| CliError::input_output(format!("run {program}"), error))?;
    if !status.success() {
        return Err(CliError::failed(format!("{program} failed: {status}")));
    }
    Profiles::parse(path, &profile::text(path)?).map(drop)
}

/// Replaces the file. Only the user can read it.
fn write(path: &Path, text: &str) -> Result<(), CliError> {
    // A link, as into a repository of such files, stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let next = path.with_extension("toml.new");
    let replace = || {
        private_files::create_directories(path.parent().unwrap_or(Path::new(".")))?;
        // What an interrupted call has left.
        let _ = fs::remove_file(&next);
        private_files::create_new(&next)?.write_all(text.as_bytes())?;
        fs::rename(&next, &path)
    };
    replace().map_err(|error| CliError::input_output(format!("write {}", path.display()), error))
}

// === impl File ===

impl File {
    fn read(path: PathBuf) -> Result<Self, CliError> {
        let text = profile::text(&path)?;
        let profiles = Profiles::parse(&path, &text)?;
        // The same syntax has just been read.
        let document = text.parse();
        let document = document.map_err(|_| CliError::failed("the file is not TOML"))?;
        Ok(Self {
            path,
            document,
            default_name: profiles.default_name().to_owned(),
        })
    }

    fn show(&mut self, selected: &Selected) -> Result<(), CliError> {
        let name = selected.name(&self.default_name);
        let Some(profile) = self.profile(&name) else {
            return Err(no_profile(&name));
        };
        for (key, item) in profile.iter() {
            if let Some(value) = item.as_value() {
                output::data(format_args!("{key} = {}", value.clone().decorated("", "")))?;
            }
        }
        Ok(())
    }

    fn set(mut self, key: &str, values: &[String], selected: &Selected) -> Result<(), CliError> {
        let set = setting(key, values)?;
        let name = selected.name(&self.default_name);
        let profiles = self.document.entry(PROFILES).or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let is_first = profiles.as_table_like().is_some_and(TableLike::is_empty);
        let profiles = profiles.as_table_like_mut();
        let profile = profiles.map(|table| table.entry(&name).or_insert_with(toml_edit::table));
        // It has been read.
        let Some(profile) = profile.and_then(Item::as_table_like_mut) else {
            return Err(no_profile(&name));
        };
        put(profile, key, set);
        if is_first && name != self.default_name {
            put(self.document.as_table_mut(), DEFAULT_KEY, value(name));
        }
        self.save()
    }

    fn unset(mut self, key: Option<&str>, selected: &Selected) -> Result<(), CliError> {
        let name = selected.name(&self.default_name);
        let Some(profile) = self.profile(&name) else {
            return Err(no_profile(&name));
        };
        match key {
            Some(key) => {
                let removed = profile.remove(key);
                removed
                    .ok_or_else(|| CliError::failed(format!("profile {name} has no key {key}")))?;
            }
            None => self.remove(&name)?,
        }
        self.save()
    }

    /// Removes a profile. If it is the default one, it must be the last one.
    fn remove(&mut self, name: &str) -> Result<(), CliError> {
        let profiles = self.document.get_mut(PROFILES);
        let profiles = profiles.and_then(Item::as_table_like_mut);
        let profiles = profiles.ok_or_else(|| no_profile(name))?;
        profiles.remove(name);
        let is_last = profiles.is_empty();
        if is_last {
            self.document.remove(DEFAULT_KEY);
        } else if name == self.default_name {
            return Err(CliError::failed(format!(
                "{name} is the default profile; `upload-gateway config use NAME` makes another one the default"
            )));
        }
        Ok(())
    }

    fn make_default(mut self, name: &str) -> Result<(), CliError> {
        if self.profile(name).is_none() {
            return Err(no_profile(name));
        }
        put(self.document.as_table_mut(), DEFAULT_KEY, value(name));
        self.save()
    }

    fn profile(&mut self, name: &str) -> Option<&mut dyn TableLike> {
        let profiles = self.document.get_mut(PROFILES)?.as_table_like_mut()?;
        profiles.get_mut(name)?.as_table_like_mut()
    }

    /// Writes the file, if it is valid.
    fn save(self) -> Result<(), CliError> {
        let text = self.document.to_string();
        Profiles::parse(&self.path, &text)?;
        write(&self.path, &text)
    }
}

// === impl Selected ===

impl Selected {
    fn name(&self, default: &str) -> String {
        self.profile.as_deref().unwrap_or(default).to_owned()
    }
}

/// Sets a key, and keeps the comments at it.
fn put(table: &mut dyn TableLike, key: &str, item: Item) {
    let Some(place) = table.get_mut(key) else {
        table.insert(key, item);
        return;
    };
    let decor = place.as_value().map(|value| value.decor().clone());
    *place = item;
    if let (Some(value), Some(decor)) = (place.as_value_mut(), decor) {
        *value.decor_mut() = decor;
    }
}

/// A key's value. Paths are those of the current directory.
fn setting(key: &str, values: &[String]) -> Result<Item, CliError> {
    match (key, values) {
        ("token_command", values) => Ok(value(values.iter().collect::<Array>())),
        (key, [path]) if PATHS.contains(&key) => {
            let failed = |error| CliError::input_output(format!("find {path}"), error);
            let path = std::path::absolute(path).map_err(failed)?;
            Ok(value(path.to_string_lossy().into_owned()))
        }
        (_, [text]) => Ok(value(text)),
        _ => Err(CliError::Usage("only token_command has several values")),
    }
}

/// The error if the file does not have the profile.
fn no_profile(name: &str) -> CliError {
    CliError::failed(format!(
        "no profile {name}; `upload-gateway config list` lists the profiles"
    ))
}
