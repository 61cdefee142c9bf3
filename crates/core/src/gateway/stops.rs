//! Stops of new uploads, which operators set for all replicas.
//!
//! The state store has one small document with all stops. Each replica reads it every [`STOPS_INTERVAL`]; while the state store
//! is unavailable, the stops that were read last apply, each up to its end.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::caller::Caller;
use crate::{
    clock::Clock,
    error::{Error, Kind, Reason, Result},
    state::{Note, NoteStore},
    upload::Timestamp,
};

/// How often each replica reads the stops.
pub const STOPS_INTERVAL: Duration = Duration::from_secs(2);

/// How many stops there can be.
const MAX_STOPS: usize = 100;

/// The longest text of a tenant, a storage or a reason, in bytes.
const MAX_TEXT: usize = 256;

/// The longest stop. A longer one is a change of the configuration.
const MAX_DURATION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often a change is tried if others change the stops at the same time.
const MAX_TRIES: usize = 10;

/// The longest delay that a refused caller is asked to wait.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Which new uploads are stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopScope {
    /// Those of this tenant. Empty: of all tenants.
    pub tenant: String,
    /// Those to this storage. Empty: to all storages.
    pub storage_id: String,
}

/// A stop of new uploads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Which ones.
    pub scope: StopScope,
    /// Why, for callers and operators.
    pub reason: String,
    /// The operator who stopped them: tenant and subject.
    pub stopped_by: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

/// The stops of new uploads.
#[derive(Debug)]
pub struct Stops {
    store: Arc<dyn NoteStore>,
    single_try: Arc<dyn NoteStore>,
    clock: Arc<dyn Clock>,
    /// The stops that were read last.
    known: RwLock<Vec<Stop>>,
}

// === impl StopScope ===

impl StopScope {
    fn has(&self, tenant: &str, storage_id: &str) -> bool {
        let fits = |own: &str, other| own.is_empty() || own == other;
        fits(&self.tenant, tenant) && fits(&self.storage_id, storage_id)
    }
}

// === impl Stops ===

impl Stops {
    /// The stops in `store`, whose calls are retried; `single_try` is the same store without retries.
    pub(super) fn new(
        store: Arc<dyn NoteStore>,
        single_try: Arc<dyn NoteStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            store,
            single_try,
            clock,
            known: RwLock::default(),
        }
    }

    /// Reads the stops, with a single try.
    ///
    /// # Errors
    /// `Unavailable`; the stops that were read before apply.
    pub async fn refresh(&self) -> Result<()> {
        let stored = self.single_try.note(&Note::Stops).await?;
        self.remember(parse(stored.as_deref())?);
        Ok(())
    }

    /// All stops that have not ended.
    ///
    /// # Errors
    /// `PermissionDenied` if the caller is not an operator; `Unavailable`.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Stop>> {
        caller.may_operate("list_upload_stops")?;
        let stored = self.store.note(&Note::Stops).await?;
        Ok(self.remember(parse(stored.as_deref())?))
    }

    /// Stops new uploads in `scope`, in place of an earlier stop of the same scope. Returns all stops.
    ///
    /// # Errors
    /// `PermissionDenied` if the caller is not an operator; `InvalidArgument`; `ResourceExhausted` if there are too many stops;
    /// `Unavailable`.
    pub async fn stop(
        &self,
        caller: &Caller,
        scope: StopScope,
        reason: String,
        until: Timestamp,
    ) -> Result<Vec<Stop>> {
        caller.may_operate("stop_uploads")?;
        let stop = Stop {
            scope,
            reason,
            stopped_by: caller.owner.to_string(),
            since: self.clock.now(),
            until,
        };
        let stopped = match stop.check() {
            Ok(()) => self.change(&stop.scope, Some(&stop)).await,
            Err(error) => Err(error),
        };
        caller.operated("stop_uploads", &stopped);
        stopped
    }

    /// Ends the stop of exactly `scope`, if there is one. Returns the others.
    ///
    /// # Errors
    /// `PermissionDenied` if the caller is not an operator; `Unavailable`.
    pub async fn allow(&self, caller: &Caller, scope: &StopScope) -> Result<Vec<Stop>> {
        caller.may_operate("allow_uploads")?;
        let allowed = self.change(scope, None).await;
        caller.operated("allow_uploads", &allowed);
        allowed
    }

    /// Checks that new uploads of `tenant` to `storage_id` are not stopped.
    ///
    /// # Errors
    /// `Unavailable` with `UploadsStopped`, and why.
    pub(super) fn check(&self, tenant: &str, storage_id: &str) -> Result<()> {
        let now = self.clock.now();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let stops = known.iter().filter(|stop| stop.until > now);
        match stops
            .filter(|stop| stop.scope.has(tenant, storage_id))
            .max_by_key(|stop| stop.until)
        {
            None => Ok(()),
            Some(stop) => Err(stop.refusal(now)),
        }
    }

    /// Replaces the stop of `scope` by `stop`, or removes it.
    async fn change(&self, scope: &StopScope, stop: Option<&Stop>) -> Result<Vec<Stop>> {
        for _ in 0..MAX_TRIES {
            let seen = self.store.note(&Note::Stops).await?;
            let mut stops = self.running(parse(seen.as_deref())?);
            stops.retain(|known| known.scope != *scope);
            stops.extend(stop.cloned());
            if stops.len() > MAX_STOPS {
                return Err(too_many());
            }
            let text = serde_json::to_string(&stops)
                .map_err(|error| Error::internal("write the stops of uploads", error))?;
            if self
                .store
                .replace_note(&Note::Stops, seen.as_deref(), &text)
                .await?
            {
                return Ok(self.remember(stops));
            }
        }
        let message = "others change the stops at the same time; repeat the call";
        let busy = Error::new(Kind::Unavailable, Reason::StateUnavailable, message);
        Err(busy.retry_after(Duration::from_secs(1)))
    }

    fn remember(&self, stops: Vec<Stop>) -> Vec<Stop> {
        let stops = self.running(stops);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.clone_from(&stops);
        stops
    }

    fn running(&self, mut stops: Vec<Stop>) -> Vec<Stop> {
        let now = self.clock.now();
        stops.retain(|stop| stop.until > now);
        stops
    }
}

// === impl Stop ===

impl Stop {
    fn check(&self) -> Result<()> {
        for (field, text) in [
            ("tenant", &self.scope.tenant),
            ("storage_id", &self.scope.storage_id),
            ("reason", &self.reason),
        ] {
            if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
                let problem =
                    format!("must have at most {MAX_TEXT} bytes and no control character");
                return Err(Error::invalid(field, problem));
            }
        }
        if self.reason.trim().is_empty() {
            return Err(Error::invalid("reason", "required: callers read it"));
        }
        if self.until <= self.since || self.until > self.since.plus(MAX_DURATION) {
            return Err(Error::invalid(
                "until",
                "must be in the future, and within 7 days",
            ));
        }
        Ok(())
    }

    fn refusal(&self, now: Timestamp) -> Error {
        let left = Duration::from_millis(self.until.0.saturating_sub(now.0));
        let message = format!("new uploads are stopped: {}; retry later", self.reason);
        Error::new(Kind::Unavailable, Reason::UploadsStopped, message)
            .retry_after(left.min(MAX_DELAY).mul_f64(rand::random_range(0.5..=1.0)))
    }
}

fn parse(stored: Option<&str>) -> Result<Vec<Stop>> {
    let Some(stored) = stored else {
        return Ok(Vec::new());
    };
    serde_json::from_str(stored)
        .map_err(|error| Error::internal("read the stops of uploads", error))
}

fn too_many() -> Error {
    let message = format!("there are {MAX_STOPS} stops; end one of them first");
    Error::new(Kind::ResourceExhausted, Reason::Overloaded, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::{gateway::Roles, upload::Owner};

    const HOUR: u64 = 3_600_000;

    /// A text; `None`: the store is unavailable.
    #[derive(Debug)]
    struct Text(Mutex<Option<String>>);

    #[async_trait]
    impl NoteStore for Text {
        async fn note(&self, _: &Note) -> Result<Option<String>> {
            match &*self.0.lock().unwrap() {
                Some(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
                None => Err(Error::state_unavailable("down")),
            }
        }

        async fn replace_note(&self, _: &Note, _: Option<&str>, text: &str) -> Result<bool> {
            *self.0.lock().unwrap() = Some(text.into());
            Ok(true)
        }
    }

    /// A clock that the test sets.
    #[derive(Debug, Default)]
    struct Set(Mutex<u64>);

    impl Clock for Set {
        fn now(&self) -> Timestamp {
            Timestamp(*self.0.lock().unwrap())
        }
    }

    #[tokio::test]
    async fn while_the_store_is_unavailable_known_stops_apply_up_to_their_end() {
        let text = Arc::new(Text(Mutex::new(Some(String::new()))));
        let clock = Arc::new(Set::default());
        let stops = Stops::new(
            Arc::clone(&text) as _,
            Arc::clone(&text) as _,
            Arc::clone(&clock) as _,
        );
        let operator = Caller {
            owner: Owner::default(),
            roles: Roles {
                operator: true,
                ..Roles::default()
            },
        };
        let scope = StopScope {
            storage_id: "media".into(),
            ..StopScope::default()
        };
        let until = Timestamp(HOUR);
        let stopped = stops.stop(&operator, scope, "it moves".into(), until).await;
        assert_eq!(stopped.unwrap().len(), 1);
        *text.0.lock().unwrap() = None;
        assert!(stops.refresh().await.is_err());
        *clock.0.lock().unwrap() = HOUR - 1;
        let error = stops.check("acme", "media").unwrap_err();
        assert_eq!(error.reason(), Reason::UploadsStopped);
        assert!(error.to_string().contains("it moves"), "{error}");
        assert!(error.retry_delay().unwrap() <= Duration::from_millis(1));
        assert!(stops.check("acme", "archive").is_ok());
        *clock.0.lock().unwrap() = HOUR;
        assert!(stops.check("acme", "media").is_ok());
    }
}
