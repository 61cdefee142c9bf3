//! Redis that may be unavailable when the gateway starts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use upload_gateway_core::{
    decorate::{Around, Decorated},
    error::{Error, Result},
    state::StateStore,
};

use super::{ConnectError, Redis, RedisConfig};

/// The call that makes the first contact. It is repeated while the gateway runs.
const CHECK: &str = "state.check";

/// Fails all calls as `Unavailable` until Redis was reached once and its settings were checked. Each
/// [`StateStore::check`] tries that.
#[derive(Debug)]
pub struct FirstContact {
    redis: Arc<Redis>,
    is_made: AtomicBool,
}

// === impl FirstContact ===

impl FirstContact {
    /// The store of `config`. Tries the first contact once.
    ///
    /// # Errors
    /// The configuration is invalid, or Redis answers and is unsuitable: it evicts keys, or its keys have an unknown
    /// format. Refused credentials are no such error, because passwords are rotated.
    pub async fn begin(config: &RedisConfig) -> Result<Arc<dyn StateStore>, ConnectError> {
        let redis = Arc::new(Redis::open(config).await?);
        let is_made = match redis.prepare().await {
            Ok(()) => true,
            Err(ConnectError::Failed(error)) if error.is_retryable() => false,
            Err(error) => return Err(error),
        };
        if is_made {
            return Ok(redis);
        }
        let contact = Self {
            redis: Arc::clone(&redis),
            is_made: AtomicBool::new(false),
        };
        Ok(Arc::new(Decorated::<dyn StateStore, _>::new(
            redis, contact,
        )))
    }

    async fn make(&self) -> Result<()> {
        match self.redis.prepare().await {
            Ok(()) => self.is_made.store(true, Ordering::Relaxed),
            Err(ConnectError::Failed(error)) => return Err(error),
            // An operator can change the settings of Redis without a restart of the gateway.
            Err(error) => return Err(Error::state_unavailable(error)),
        }
        Ok(())
    }
}

impl Around for FirstContact {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        if !self.is_made.load(Ordering::Relaxed) {
            if name != CHECK {
                return Err(Error::state_unavailable("redis was not reached yet"));
            }
            self.make().await?;
        }
        call().await
    }
}
