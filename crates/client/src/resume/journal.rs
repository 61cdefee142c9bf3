//! A journal of uploads: a file to which processes append lines, each with all that is known of one file.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::SavedUpload;

#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    /// How much of the file is in `entries`, in bytes.
    read_to: u64,
    pub(super) entries: HashMap<String, Entry>,
    pub(super) lines: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Without an id if the upload is not created yet.
    pub(super) saved: SavedUpload,
    /// Whether the sender compares the file with the complete upload, and replaces that if they differ.
    pub(super) is_claimed: bool,
    pub(super) saved_at: SystemTime,
    pub(super) sender: String,
}

// === impl Journal ===

impl Journal {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut journal = Self {
            file: OpenOptions::new()
                .create(true)
                .read(true)
                .append(true)
                .open(path)?,
            read_to: 0,
            entries: HashMap::new(),
            lines: 0,
        };
        journal.read_more()?;
        Ok(journal)
    }

    pub(super) fn append(&mut self, key: &str, entry: &Entry) -> io::Result<()> {
        self.file.write_all(entry.line(key)?.as_bytes())
    }

    /// Reads what this and other processes have appended.
    pub(super) fn read_more(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() == self.read_to {
            return Ok(());
        }
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(self.read_to))?;
        self.file.read_to_end(&mut bytes)?;
        // The last line may not be whole yet.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        let whole = &bytes[..whole.map_or(0, |end| end + 1)];
        self.read_to += whole.len() as u64;
        for line in String::from_utf8_lossy(whole).lines() {
            self.lines += 1;
            // A line that was cut off by a full disk is no entry.
            if let Some((key, entry)) = Entry::parse(line) {
                self.entries.insert(key, entry);
            }
        }
        Ok(())
    }
}

// === impl Entry ===

impl Entry {
    /// The line of the journal.
    ///
    /// # Errors
    /// A control character in the key or in what the gateway sent.
    pub(super) fn line(&self, key: &str) -> io::Result<String> {
        let SavedUpload {
            upload_id,
            resume_token,
            is_complete,
            size,
            modified,
        } = &self.saved;
        let texts = [key, upload_id, resume_token];
        if texts.iter().any(|text| text.contains(char::is_control)) {
            let problem = "a key, an id or a token has a control character";
            return Err(io::Error::new(ErrorKind::InvalidInput, problem));
        }
        let phase = match (*is_complete, self.is_claimed) {
            (false, _) => "open",
            (true, false) => "complete",
            (true, true) => "claimed",
        };
        let size = size.map_or_else(String::new, |size| size.to_string());
        let modified = modified.map_or_else(String::new, |time| nanoseconds(time).to_string());
        let saved_at = nanoseconds(self.saved_at);
        let sender = &self.sender;
        // It begins with a line feed, too: the line before it may have been cut off by a full disk.
        Ok(format!(
            "\n{phase}\t{size}\t{modified}\t{saved_at}\t{sender}\t{upload_id}\t{resume_token}\t{key}\n"
        ))
    }

    /// The key and the entry of a line.
    fn parse(line: &str) -> Option<(String, Self)> {
        let mut fields = line.splitn(8, '\t');
        let mut next = || fields.next();
        let (is_complete, is_claimed) = match next()? {
            "complete" => (true, false),
            "claimed" => (true, true),
            "open" => (false, false),
            _ => return None,
        };
        let (size, modified, saved_at) = (next()?, next()?, next()?);
        let (sender, upload_id, resume_token, key) = (next()?, next()?, next()?, next()?);
        let entry = Self {
            saved: SavedUpload {
                upload_id: upload_id.into(),
                resume_token: resume_token.into(),
                is_complete,
                size: size.parse().ok(),
                modified: modified.parse().ok().map(time),
            },
            is_claimed,
            saved_at: time(saved_at.parse().ok()?),
            sender: sender.into(),
        };
        Some((key.into(), entry))
    }
}

/// Since the epoch. Times before it are taken for the epoch.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn time(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}
