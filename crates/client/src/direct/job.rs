//! What all steps of a direct upload share: calls of the gateway, and puts of file bytes.

use tonic::{Response, Status};

use super::{
    file::{LocalFile, Span},
    progress::Progress,
    retries::Retries,
    store::Store,
};
use crate::{
    client::Client,
    error::ClientError,
    proto::v1::Signature,
    retry::{BackOff, RetryPolicy},
};

/// The file, its destination and its progress.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) client: Client,
    pub(super) store: Store,
    pub(super) file: LocalFile,
    pub(super) retry: RetryPolicy,
    pub(super) progress: Progress,
}

// === impl Job ===

impl Job {
    /// Calls the gateway, and retries while it is unavailable.
    pub(super) async fn call<Q, A, C>(
        &self,
        request: Q,
        call: impl Fn(Client, Q) -> C,
    ) -> Result<A, ClientError>
    where
        Q: Clone,
        C: Future<Output = Result<Response<A>, Status>> + Send,
    {
        let mut retries = self.retries();
        loop {
            match call(self.client.clone(), request.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => retries.retry(&self.progress, status.into()).await?,
            }
        }
    }

    /// Puts bytes of the file, once.
    pub(super) async fn put(&self, signature: &Signature, span: Span) -> Result<(), ClientError> {
        let bytes = self.file.read(span).await?;
        let mut in_flight = self.progress.in_flight();
        self.store
            .send(signature, bytes, |sent| in_flight.sent(sent))
            .await?;
        in_flight.acknowledged(span.size);
        Ok(())
    }

    /// The retries of one call or one request.
    pub(super) fn retries(&self) -> Retries {
        Retries::new(BackOff::new(self.retry.clone(), self.progress.stored()))
    }
}
