//! Which files a command sends: those that it names, those in directories, and those of a list.

use std::{
    ffi::OsStr,
    fs::{File, Metadata},
    io::{self, BufRead, BufReader, stdin},
    path::{self, Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher};
use tokio::sync::mpsc;
use walkdir::{DirEntry, WalkDir};

use crate::cli::{error::CliError, progress::Display};

/// The number of files that are found before they are sent. The sum of their sizes is shown meanwhile.
const FOUND_AHEAD: usize = 100_000;

/// The longest line of a list in bytes. A path of Linux has at most 4,096.
const MAX_LINE: u64 = 64 * 1024;

/// Where the files are.
#[derive(Debug)]
pub(super) struct Selection {
    /// The arguments of the command.
    pub(super) paths: Vec<PathBuf>,
    /// A file with one path in each line; `-` for standard input.
    pub(super) list: Option<PathBuf>,
    /// Whether directories are sent, with all that is in them.
    pub(super) recursive: bool,
    pub(super) follow_symlinks: bool,
    pub(super) exclude: Vec<Pattern>,
}

/// A glob pattern for names, or for paths below a directory if it has a slash.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    matcher: GlobMatcher,
    has_slash: bool,
}

/// A file that was found, or why one was not.
#[derive(Debug)]
pub(super) enum Found {
    /// A path to send.
    File(Candidate),
    /// What is neither a file nor a directory, and is not sent.
    Skipped {
        /// Its path.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// What cannot be sent.
    Failed {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: CliError,
    },
}

/// A file to send.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    /// The path below the directory that the command names, with slashes. Empty for a file that it names itself.
    pub(super) below: String,
    /// The size in bytes when it was found, of a regular file.
    pub(super) size: Option<u64>,
}

/// Where files go that were found.
struct Queue {
    found: mpsc::Sender<Found>,
    /// Expects each file.
    display: Display,
}

// === impl Selection ===

impl Selection {
    /// Begins to look for the files, on a thread of its own.
    pub(super) fn find(self, display: Display) -> mpsc::Receiver<Found> {
        let (found, files) = mpsc::channel(FOUND_AHEAD);
        let found = Queue { found, display };
        tokio::task::spawn_blocking(move || {
            for path in &self.paths {
                self.add(path, &found)?;
            }
            match &self.list {
                Some(list) => self.add_list(list, &found),
                None => Some(()),
            }
        });
        files
    }

    /// Adds a path that the command or its list names. `None`: the command has ended.
    fn add(&self, path: &Path, found: &Queue) -> Option<()> {
        let metadata = path.metadata().ok();
        if metadata.as_ref().is_some_and(Metadata::is_dir) {
            if self.recursive {
                return self.add_directory(path, found);
            }
            let error = format!(
                "{} is a directory; -r sends the files in it",
                path.display()
            );
            return found.send(failed(path, CliError::failed(error)));
        }
        let candidate = Candidate {
            path: path.to_owned(),
            below: String::new(),
            size: metadata.map(|metadata| metadata.len()),
        };
        found.send(Found::File(candidate))
    }

    fn add_list(&self, list: &Path, found: &Queue) -> Option<()> {
        let opened: io::Result<Box<dyn BufRead>> = match list.as_os_str() == "-" {
            true => Ok(Box::new(stdin().lock())),
            false => File::open(list).map(|file| Box::new(BufReader::new(file)) as _),
        };
        let failed = |error| {
            let action = format!("read the list {}", list.display());
            failed(list, CliError::input_output(action, error))
        };
        let mut lines = match opened {
            Ok(lines) => lines,
            Err(error) => return found.send(failed(error)),
        };
        loop {
            let mut line = Vec::new();
            match io::Read::take(&mut lines, MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) => return Some(()),
                Ok(_) => {}
                Err(error) => return found.send(failed(error)),
            }
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match path_of(line) {
                Some(path) if !line.is_empty() => self.add(&path, found)?,
                Some(_) => {}
                None => found.send(failed(io::ErrorKind::InvalidData.into()))?,
            }
        }
    }

    fn add_directory(&self, directory: &Path, found: &Queue) -> Option<()> {
        let walk = WalkDir::new(directory)
            .follow_links(self.follow_symlinks)
            .sort_by_file_name();
        let is_included = |entry: &DirEntry| {
            entry.depth() == 0 || !self.excludes(entry.file_name(), below(entry, directory))
        };
        for entry in walk.into_iter().filter_entry(is_included) {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) if entry.file_type().is_file() => {
                    let size = entry.metadata().ok().map(|metadata| metadata.len());
                    found.send(candidate(&entry, directory, size))?;
                }
                Ok(entry) => {
                    let why = match entry.path_is_symlink() {
                        true => "is a symbolic link; --follow-symlinks sends what it points to",
                        false => "is not a file",
                    };
                    let path = entry.into_path();
                    found.send(Found::Skipped { path, why })?;
                }
                Err(error) => {
                    let path = error.path().unwrap_or(directory).to_owned();
                    let action = format!("read {}", path.display());
                    let error = CliError::input_output(action, error.into());
                    found.send(Found::Failed { path, error })?;
                }
            }
        }
        Some(())
    }

    fn excludes(&self, name: &OsStr, below: &Path) -> bool {
        self.exclude
            .iter()
            .any(|pattern| pattern.matches(name, below))
    }
}

// === impl Candidate ===

impl Candidate {
    pub(super) fn absolute_path(&self) -> Result<PathBuf, CliError> {
        let action = || format!("find {}", self.path.display());
        path::absolute(&self.path).map_err(|error| CliError::input_output(action(), error))
    }
}

// === impl Queue ===

impl Queue {
    /// `None`: the command has ended.
    fn send(&self, file: Found) -> Option<()> {
        if let Found::File(candidate) = &file {
            self.display.expect(candidate.size);
        }
        self.found.blocking_send(file).ok()
    }
}

// === impl Pattern ===

impl Pattern {
    /// For clap.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let has_slash = text.contains('/');
        let glob = GlobBuilder::new(text.trim_start_matches('/').trim_end_matches('/'))
            .literal_separator(true)
            .build()
            .map_err(|error| error.kind().to_string())?;
        Ok(Self {
            matcher: glob.compile_matcher(),
            has_slash: has_slash && !text.trim_end_matches('/').is_empty(),
        })
    }

    fn matches(&self, name: &OsStr, below: &Path) -> bool {
        if self.has_slash {
            self.matcher.is_match(below)
        } else {
            self.matcher.is_match(name)
        }
    }
}

fn candidate(entry: &DirEntry, directory: &Path, size: Option<u64>) -> Found {
    let path = entry.path().to_owned();
    let components = below(entry, directory).components();
    let names: Option<Vec<_>> = components
        .map(|name| match name {
            path::Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    match names {
        Some(names) => Found::File(Candidate {
            path,
            below: names.join("/"),
            size,
        }),
        None => failed(
            &path,
            CliError::failed("its path is not UTF-8; rename it, or send it alone with --name"),
        ),
    }
}

fn below<'a>(entry: &'a DirEntry, directory: &Path) -> &'a Path {
    entry.path().strip_prefix(directory).unwrap_or(entry.path())
}

fn failed(path: &Path, error: CliError) -> Found {
    Found::Failed {
        path: path.to_owned(),
        error,
    }
}

#[cfg(unix)]
fn path_of(line: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Some(OsStr::from_bytes(line).into())
}

#[cfg(not(unix))]
fn path_of(line: &[u8]) -> Option<PathBuf> {
    std::str::from_utf8(line).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::progress::Files;

    async fn find(selection: Selection) -> Vec<String> {
        let mut files = selection.find(Display::new(Files::Many, true));
        let mut found = Vec::new();
        while let Some(file) = files.recv().await {
            found.push(match file {
                Found::File(file) if file.below.is_empty() => file.path.display().to_string(),
                Found::File(file) => format!("{} {:?}", file.below, file.size),
                Found::Skipped { path, why } => {
                    let name = path.file_name().unwrap_or_default().display();
                    format!("{name} {}", &why[..11])
                }
                Found::Failed { error, .. } => error.to_string(),
            });
        }
        found
    }

    fn selection(paths: &[&Path]) -> Selection {
        Selection {
            paths: paths.iter().map(|path| path.to_path_buf()).collect(),
            list: None,
            recursive: true,
            follow_symlinks: false,
            exclude: Vec::new(),
        }
    }

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for (path, content) in [("b/c.txt", "c"), ("b/d.tmp", "dd"), ("a", ""), ("k/k", "k")] {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        std::os::unix::fs::symlink("../a", tree.path().join("b/link")).unwrap();
        tree
    }

    #[tokio::test]
    async fn a_directory_is_sent_with_the_paths_below_it() {
        let tree = tree();
        let found = find(selection(&[tree.path()])).await;
        let expected = [
            "a Some(0)",
            "b/c.txt Some(1)",
            "b/d.tmp Some(2)",
            "link is a symbol",
            "k/k Some(1)",
        ];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn symbolic_links_are_followed_on_demand() {
        let tree = tree();
        let found = find(Selection {
            follow_symlinks: true,
            ..selection(&[tree.path()])
        });
        assert!(found.await.contains(&"b/link Some(0)".to_owned()));
    }

    #[tokio::test]
    async fn names_and_paths_are_excluded() {
        let tree = tree();
        for (pattern, left) in [
            ("*.tmp", 4),
            ("b", 2),
            ("/b/*.t*", 3),
            ("/k/", 4),
            ("/*.tmp", 5),
        ] {
            let selection = Selection {
                exclude: vec![Pattern::parse(pattern).unwrap()],
                ..selection(&[tree.path()])
            };
            let found = find(selection).await;
            assert_eq!(found.len(), left, "{pattern}: {found:?}");
        }
        assert!(Pattern::parse("a[").is_err());
    }

    #[tokio::test]
    async fn a_list_names_a_file_in_each_line() {
        let tree = tree();
        let list = tree.path().join("list");
        fs::write(&list, "a b\n\nc\r\nd").unwrap();
        let found = find(Selection {
            list: Some(list),
            ..selection(&[])
        });
        assert_eq!(found.await, ["a b", "c", "d"]);
    }

    #[tokio::test]
    async fn without_a_flag_a_directory_is_an_error() {
        let tree = tree();
        let found = find(Selection {
            recursive: false,
            ..selection(&[tree.path()])
        });
        assert!(found.await[0].ends_with("is a directory; -r sends the files in it"));
    }
}
