//! The format version of a state file.

use std::path::Path;

use ::redb::{Database, ReadableDatabase, TableDefinition, TableError};
use upload_gateway_core::error::Result;

use super::failure::internal;
use crate::unknown_format::UnknownFormat;

/// The version of all tables and of their rows. [`check`] refuses a file with another one.
const FORMAT: &str = "4";

/// The version of the file. Its name and types stay the same in all versions, so that every release can read it.
const TABLE: TableDefinition<'_, (), &str> = TableDefinition::new("format");

/// Refuses a file in another format than [`FORMAT`] and leaves it as it is; stores the format in a file without tables.
///
/// # Errors
/// `Internal`, with both versions in the message; otherwise what the file system reports.
pub(super) fn check(database: &Database, path: &Path) -> Result<()> {
    let transaction = database.begin_read().map_err(internal)?;
    let found = match transaction.open_table(TABLE) {
        Ok(table) => table.get(()).map_err(internal)?,
        Err(TableError::TableDoesNotExist(_)) => {
            let is_new = transaction
                .list_tables()
                .map_err(internal)?
                .next()
                .is_none();
            if is_new {
                return store(database);
            }
            None
        }
        Err(error) => return Err(internal(error)),
    };
    let found = found.as_ref().map(|version| version.value());
    if found == Some(FORMAT) {
        return Ok(());
    }
    let stored = format!("the state file {}", path.display());
    Err(UnknownFormat::new(stored, found, FORMAT).into())
}

fn store(database: &Database) -> Result<()> {
    let transaction = database.begin_write().map_err(internal)?;
    {
        let mut table = transaction.open_table(TABLE).map_err(internal)?;
        table.insert((), FORMAT).map_err(internal)?;
    }
    transaction.commit().map_err(internal)
}
