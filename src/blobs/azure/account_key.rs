//! The key of the account, which is read again from its file if Azure refuses it.

use std::{path::PathBuf, time::Duration};

use upload_gateway_core::{
    error::{Error, Result},
    upload::Timestamp,
};

use super::sas::AccountKey;
use crate::{
    blobs::{
        renewed::{Expiring, Renewed},
        secret_file::SecretFile,
    },
    values::Secret,
};

/// Stands for a code if the file has something else than a key.
const INVALID_KEY: &str = "account_key is not base64";

/// The key of an account. It does not expire, but it can be replaced.
#[derive(Debug)]
pub(super) struct CachedKey {
    account: String,
    secret: SecretFile,
    key: Renewed<AccountKey>,
}

// === impl CachedKey ===

impl CachedKey {
    /// The key `secret`, which was read from `file` if it is in one.
    ///
    /// # Errors
    /// `Internal` if it is not base64.
    pub(super) fn new(account: &str, secret: &Secret, file: Option<PathBuf>) -> Result<Self> {
        AccountKey::new(account, secret)?;
        Ok(Self {
            account: account.into(),
            secret: SecretFile::new(secret.clone(), file),
            key: Renewed::new(Duration::ZERO),
        })
    }

    /// The key.
    ///
    /// # Errors
    /// `Unavailable`, for an operator, if the file has no key in base64.
    pub(super) async fn get(&self) -> Result<AccountKey> {
        let fetch = async {
            let key = AccountKey::new(&self.account, &self.secret.read().await);
            Ok(Expiring {
                value: key.map_err(|error| Error::for_operator(INVALID_KEY, error))?,
                expires_at: Timestamp::never(),
            })
        };
        // Any time is before the end of a key that does not expire.
        let key = self.key.get(Timestamp::default(), fetch).await?;
        Ok(key.value)
    }

    /// The next request reads the key again.
    pub(super) fn forget(&self) {
        self.key.forget();
    }
}
