//! What Azure says of a container, for the diagnosis of a set-up.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use azure_storage_blob::models::BlobContainerClientGetPropertiesResultHeaders;
use upload_gateway_core::upload::Timestamp;

use super::{
    AzureStore,
    fault::{code, status},
    sign::SigningKey,
};
use crate::{
    blobs::{Inspect, Refusal},
    seen::{Seen, Unseen},
};

/// When Azure removes uncommitted blocks.
/// <https://learn.microsoft.com/rest/api/storageservices/put-block>
const UNCOMMITTED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[async_trait]
impl Inspect for AzureStore {
    fn endpoint(&self) -> String {
        self.url.to_string()
    }

    async fn refusal(&self) -> Option<Refusal> {
        let error = self.first_page().await.err()?;
        let status = status(&error)?;
        let code = code(&error).map(str::to_owned);
        Some(Refusal {
            code: code.unwrap_or_else(|| format!("status {status}")),
            ..Refusal::default()
        })
    }

    async fn identity(&self) -> Seen<String> {
        let SigningKey::Delegation(delegation) = &self.signer.key else {
            return Ok(format!("the key of account {}", self.signer.account));
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = since.unwrap_or_default().as_millis();
        let now = Timestamp(u64::try_from(now).unwrap_or(u64::MAX));
        match delegation.key(now).await {
            Ok(key) => Ok(format!(
                "object {} of Entra ID tenant {}",
                key.value.signed_oid, key.value.signed_tid
            )),
            Err(error) => {
                let code = error.operator_code().unwrap_or("no user delegation key");
                let why = format!("the store answers {code}");
                Err(Unseen::without(
                    "the role Storage Blob Delegator on the account",
                    why,
                ))
            }
        }
    }

    async fn incomplete_lifetime(&self, _prefix: &str) -> Seen<Option<Duration>> {
        Ok(Some(UNCOMMITTED))
    }

    async fn keeps_versions(&self) -> Seen<bool> {
        Err(Unseen::never(
            "Azure shows versioning and soft delete in Resource Manager only: `az storage account blob-service-properties show`",
        ))
    }

    async fn lock(&self) -> Seen<Option<String>> {
        let found = self.answer(self.client.get_properties(None)).await;
        let found = found.map_err(|error| {
            let why = match code(&error) {
                Some(code) => format!("the store answers {code}"),
                None => "the store does not show the properties of the container".into(),
            };
            Unseen::without(
                "Entra ID instead of an account key, with the role Storage Blob Data Contributor",
                why,
            )
        })?;
        let has = |header: azure_core::Result<Option<bool>>| header.ok().flatten() == Some(true);
        Ok(
            match (
                has(found.has_immutability_policy()),
                has(found.has_legal_hold()),
            ) {
                (true, _) => Some("an immutability policy".into()),
                (false, true) => Some("a legal hold".into()),
                (false, false) => None,
            },
        )
    }
}
