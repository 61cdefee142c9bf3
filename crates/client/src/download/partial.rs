//! A file that is not whole yet, beside the place of the whole one.
//!
//! One stream writes it in order: its length is what has arrived. Several streams write ranges: a second file lists those
//! that are whole.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use super::file::Range;

/// What is known of a partial file. It is locked: another process cannot write it at the same time.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    size: u64,
    /// The ranges that have arrived, in order.
    arrived: Vec<Range>,
    /// Lists the ranges, if several streams write.
    list: Option<File>,
}

// === impl Partial ===

impl Partial {
    /// Opens the partial file of an upload with a file of `size` bytes, for the place `whole`.
    ///
    /// # Errors
    /// `ResourceBusy` if another process writes it.
    pub(super) fn open(whole: &Path, upload_id: &str, size: u64) -> io::Result<Self> {
        let path = partial_path(whole, upload_id);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let problem = "another process writes it";
                return Err(io::Error::new(ErrorKind::ResourceBusy, problem));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let length = file.metadata()?.len();
        let listed = match fs::read_to_string(list_path(&path)) {
            Ok(list) => Some(parse(&list, length.min(size))),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // A longer file is another one.
        let prefix = || Range::new(0, if length > size { 0 } else { length });
        let mut partial = Self {
            path,
            file,
            size,
            arrived: Vec::new(),
            list: None,
        };
        for range in listed.unwrap_or_else(|| vec![prefix()]) {
            partial.add(range);
        }
        Ok(partial)
    }

    /// Prepares the file for several streams.
    pub(super) fn begin_list(&mut self) -> io::Result<()> {
        let mut list = File::create(list_path(&self.path))?;
        for range in &self.arrived {
            writeln!(list, "{} {}", range.offset, range.size)?;
        }
        self.list = Some(list);
        Ok(())
    }

    /// Prepares the file for one stream, which begins where the first range ends.
    pub(super) fn write_in_order(&mut self) -> io::Result<()> {
        self.arrived.truncate(usize::from(self.front() > 0));
        self.file.set_len(self.front())?;
        remove(&list_path(&self.path))
    }

    /// Forgets all that has arrived.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.arrived.clear();
        self.write_in_order()
    }

    /// Removes the file.
    pub(super) fn remove(self) -> io::Result<()> {
        remove(&list_path(&self.path))?;
        remove(&self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of bytes that have arrived.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived.iter().map(|range| range.size).sum()
    }

    /// The number of bytes that have arrived before the first gap.
    pub(super) fn front(&self) -> u64 {
        let first = self.arrived.first().filter(|first| first.offset == 0);
        first.map_or(0, |first| first.size)
    }

    /// What is missing, in ranges of at most `max_size` bytes.
    pub(super) fn missing(&self, max_size: u64) -> Vec<Range> {
        let (mut missing, mut position) = (Vec::new(), 0);
        let end = Range::new(self.size, 0);
        for range in self.arrived.iter().chain([&end]) {
            while position < range.offset {
                let size = max_size.min(range.offset - position);
                missing.push(Range::new(position, size));
                position += size;
            }
            position = range.end();
        }
        missing
    }

    /// Records that a range is in the file.
    pub(super) fn record(&mut self, range: Range) -> io::Result<()> {
        self.add(range);
        match &mut self.list {
            Some(list) => writeln!(list, "{} {}", range.offset, range.size),
            None => Ok(()),
        }
    }

    /// Moves the whole file to its place.
    pub(super) fn finish(self, whole: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, whole)?;
        remove(&list_path(&self.path))
    }

    fn add(&mut self, range: Range) {
        if range.size == 0 {
            return;
        }
        let at = self
            .arrived
            .partition_point(|other| other.offset < range.offset);
        self.arrived.insert(at, range);
        self.arrived.dedup_by(|next, range| {
            let touches = next.offset <= range.end();
            if touches {
                range.size = range.end().max(next.end()) - range.offset;
            }
            touches
        });
    }
}

/// The ranges of a list that end at `end` or before it.
fn parse(list: &str, end: u64) -> Vec<Range> {
    let parse = |line: &str| {
        let (offset, size) = line.split_once(' ')?;
        let range = Range::new(offset.parse().ok()?, size.parse().ok()?);
        (range.offset.checked_add(range.size)? <= end).then_some(range)
    };
    // The last line may have been cut off. A shorter number is a smaller range, unless its line feed is missing.
    let whole = list.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(parse).collect()
}

/// Where a file is until it is whole. Downloads of other uploads to the same place have other partial files.
fn partial_path(whole: &Path, upload_id: &str) -> PathBuf {
    let tail = upload_id.len().saturating_sub(8);
    let mut partial = whole.as_os_str().to_owned();
    partial.push(format!(
        ".{}.part",
        upload_id.get(tail..).unwrap_or(upload_id)
    ));
    partial.into()
}

fn list_path(partial: &Path) -> PathBuf {
    let mut list = partial.as_os_str().to_owned();
    list.push("s");
    list.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(whole: &Path) -> Partial {
        Partial::open(whole, "uploads-12345678", 100).unwrap()
    }

    #[test]
    fn the_length_of_a_file_that_one_stream_wrote_is_what_has_arrived() {
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("a");
        fs::write(directory.path().join("a.12345678.part"), [0; 30]).unwrap();
        let partial = open(&whole);
        assert_eq!((partial.arrived(), partial.front()), (30, 30));
        let missing = [Range::new(30, 40), Range::new(70, 30)];
        assert_eq!(partial.missing(40), missing);
    }

    #[test]
    fn the_ranges_that_several_streams_wrote_are_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("a");
        let mut partial = open(&whole);
        partial.begin_list().unwrap();
        partial.file.set_len(80).unwrap();
        for (offset, size) in [(40, 20), (60, 20), (0, 10)] {
            partial.record(Range::new(offset, size)).unwrap();
        }
        drop(partial);
        let mut partial = open(&whole);
        assert_eq!((partial.arrived(), partial.front()), (50, 10));
        let missing = [Range::new(10, 30), Range::new(80, 20)];
        assert_eq!(partial.missing(50), missing);
        partial.write_in_order().unwrap();
        assert_eq!((partial.arrived(), partial.front()), (10, 10));
        assert_eq!(partial.file.metadata().unwrap().len(), 10);
    }

    #[test]
    fn a_file_that_is_too_long_is_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("a");
        fs::write(directory.path().join("a.12345678.part"), [0; 101]).unwrap();
        assert_eq!(open(&whole).arrived(), 0);
    }

    #[test]
    fn a_list_that_was_cut_off_or_promises_more_than_the_file_has_is_not_believed() {
        assert_eq!(parse("0 10\n90 20\nx\n20 5", 100), [Range::new(0, 10)]);
    }

    #[test]
    fn two_processes_do_not_write_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("a");
        let _first = open(&whole);
        let second = Partial::open(&whole, "uploads-12345678", 100);
        assert_eq!(second.unwrap_err().kind(), ErrorKind::ResourceBusy);
    }
}
