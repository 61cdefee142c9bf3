//! What a use case shows of its call beside the calls to stores, around which decorators run.

use std::{fmt::Debug, sync::Arc};

use futures::future::BoxFuture;

use crate::{
    call,
    error::{Error, Result},
    upload::{Origin, Upload},
};

/// Observes one call.
pub trait Observe: Debug + Send + Sync {
    /// The name of the call, which is kept in the records of the uploads that it creates.
    fn origin(&self) -> Origin;

    /// The id of the trace that the call belongs to, in hexadecimal digits.
    fn trace_id(&self) -> String;

    /// Learns that the call works on `upload`.
    fn works_on(&self, upload: &Upload);

    /// Runs `store`, which stores a part, to its end.
    fn around_part<'a>(
        &'a self,
        part: PartToStore,
        store: BoxFuture<'a, Result<()>>,
    ) -> BoxFuture<'a, Result<()>>;
}

/// A part of a stream that is about to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartToStore {
    /// The number, from 1.
    pub number: u32,
    /// The size in bytes.
    pub size: u64,
}

/// The observer of a call. An edge puts it into the [scope](call::scope) of the call; without one, nothing is observed.
#[derive(Debug)]
pub struct Observer(pub Box<dyn Observe>);

fn current() -> Option<Arc<Observer>> {
    call::current()
}

/// The name of the running call, if it is observed.
pub(crate) fn origin() -> Option<Origin> {
    current().map(|observer| observer.0.origin())
}

/// The id of the trace that the running call belongs to, if it is observed.
pub fn trace_id() -> Option<String> {
    current().map(|observer| observer.0.trace_id())
}

/// The running call works on `upload`.
pub(crate) fn works_on(upload: &Upload) {
    if let Some(observer) = current() {
        observer.0.works_on(upload);
    }
}

/// Runs `store`, which stores a part for the running call, and returns what it returns.
pub(crate) async fn part<T: Send>(
    part: PartToStore,
    store: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let Some(observer) = current() else {
        return store.await;
    };
    let mut stored = None;
    let observed = async {
        stored = Some(store.await?);
        Ok(())
    };
    observer.0.around_part(part, Box::pin(observed)).await?;
    stored.ok_or_else(|| Error::fault("an observer did not run what it observes"))
}
