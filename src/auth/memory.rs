//! Credentials that were verified just now, so that not each call verifies one again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// How long at most one is remembered.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The SHA-256 of a credential.
pub(super) type Digest = [u8; 32];

/// What verified credentials stand for.
#[derive(Debug)]
pub(super) struct Memory<T>(Mutex<HashMap<Digest, Remembered<T>>>);

#[derive(Debug)]
struct Remembered<T> {
    value: T,
    until: Instant,
}

// === impl Memory ===

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Memory<T> {
    /// What is remembered of a credential.
    pub(super) fn get(&self, digest: &Digest) -> Option<T> {
        // A std mutex: held for a few instructions, never across an await.
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = remembered.get(digest)?;
        (found.until > Instant::now()).then(|| found.value.clone())
    }

    /// Remembers a value for `age`, and at most a minute.
    pub(super) fn insert(&self, digest: Digest, value: T, age: Duration) {
        let now = Instant::now();
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, remembered| remembered.until > now);
        }
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        let until = now + age.min(MAX_AGE);
        remembered.insert(digest, Remembered { value, until });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_credential_is_remembered_for_its_age_and_at_most_a_minute() {
        let memory = Memory::default();
        memory.insert([1; 32], "short", Duration::from_secs(10));
        memory.insert([2; 32], "long", Duration::from_secs(1000));
        let found = || [[1; 32], [2; 32], [3; 32]].map(|digest| memory.get(&digest));
        assert_eq!(found(), [Some("short"), Some("long"), None]);
        advance(Duration::from_secs(10)).await;
        assert_eq!(found(), [None, Some("long"), None]);
        advance(MAX_AGE).await;
        assert_eq!(found(), [None; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let memory = Memory::default();
        for number in 0..=2 * MAX_REMEMBERED {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            memory.insert(digest, number, MAX_AGE);
        }
        assert!(memory.0.lock().unwrap().len() <= MAX_REMEMBERED);
    }
}
