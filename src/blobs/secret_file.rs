//! A secret of the configuration, which is read again from its file if it came from one.

use std::{
    io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use crate::values::Secret;

/// A secret, and the file that it came from.
#[derive(Debug)]
pub(super) struct SecretFile {
    path: Option<PathBuf>,
    last: Mutex<Secret>,
}

// === impl SecretFile ===

impl SecretFile {
    /// A secret that was read from `path`, or that is in no file.
    pub(super) fn new(secret: Secret, path: Option<PathBuf>) -> Self {
        Self {
            path,
            last: Mutex::new(secret),
        }
    }

    /// The secret that the file contains now. If it cannot be read, that is logged, and the last one is returned.
    pub(super) async fn read(&self) -> Secret {
        let Some(path) = &self.path else {
            return self.last();
        };
        match read(path).await {
            Ok(secret) => {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                *last = secret.clone();
                secret
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read a secret again");
                self.last()
            }
        }
    }

    fn last(&self) -> Secret {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }
}

async fn read(path: &PathBuf) -> io::Result<Secret> {
    let text = tokio::fs::read_to_string(path).await?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(io::Error::other("the file is empty"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_replaced_file_is_read_and_a_missing_or_empty_one_keeps_the_last_secret() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("key");
        let secret = SecretFile::new("first".into(), Some(path.clone()));
        assert_eq!(secret.read().await.expose(), "first");
        std::fs::write(&path, "second\n").unwrap();
        assert_eq!(secret.read().await.expose(), "second");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(secret.read().await.expose(), "second");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(secret.read().await.expose(), "second");
        let fixed = SecretFile::new("fixed".into(), None);
        assert_eq!(fixed.read().await.expose(), "fixed");
    }
}
