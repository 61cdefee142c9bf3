//! Blobs of blocks.

use std::collections::BTreeMap;

use async_trait::async_trait;
use azure_core::http::RequestContent;
use azure_storage_blob::models::{
    BlockBlobClientCommitBlockListOptions, BlockBlobClientStageBlockOptions,
    BlockBlobClientStageBlockResultHeaders, BlockListType, BlockLookupList,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use upload_gateway_core::{
    blobs::{
        Begun, Commit, MultipartStore, NewObject, NewPart, PUT_TIMEOUT, Session, SessionPage,
        StoredPart, part_damaged, unproven,
    },
    error::{Error, Result},
    upload::{Digests, Part, WriterTag},
};

use super::{
    AzureStore, BlockId, NOT_FOUND,
    block_list::stored_part,
    digests,
    fault::{code, fault, is_refusal, report},
    http::within,
    is_damage, metadata,
    placement::headers,
    policy::call_options,
};
use crate::blobs::transport::Timeouts;

#[async_trait]
impl MultipartStore for AzureStore {
    async fn begin(&self, object: &NewObject) -> Result<Begun> {
        Ok(Begun {
            id: format!("{:032x}", rand::random::<u128>()),
            integrity: object.integrity,
        })
    }

    async fn put_part(&self, session: &Session<'_>, part: NewPart) -> Result<String> {
        let id = BlockId::streamed(part.number, part.writer)?;
        let (md5, crc64) = (part.checksum.md5(), part.checksum.crc64nvme());
        let options = BlockBlobClientStageBlockOptions {
            transactional_content_md5: md5.map(|md5| md5.0.to_vec()),
            transactional_content_crc64: crc64.map(|crc64| crc64.0.to_le_bytes().to_vec()),
            encryption_scope: session.scope.map(str::to_owned),
            method_options: call_options(Timeouts::silence(self.operation_timeout), Vec::new()),
            ..BlockBlobClientStageBlockOptions::default()
        };
        let (name, size) = (id.to_bytes(), part.body.len() as u64);
        let blob = self.blob(session.key).block_blob_client();
        let stage = blob.stage_block(&name, size, part.body.into(), Some(options));
        let output = within(PUT_TIMEOUT, stage).await.map_err(|error| {
            if is_damage(&error) {
                part_damaged(report(&error))
            } else {
                fault("put a block", error)
            }
        })?;
        let (md5, crc64) = (output.content_md5(), output.content_crc64());
        let stored = digests::named(md5.ok().flatten(), crc64.ok().flatten());
        if Digests::from(part.checksum).contradict(&stored) {
            return Err(part_damaged(format!(
                "part {} has {stored:?} in the store, and {:?} here",
                part.number, part.checksum
            )));
        }
        let is_proven = Digests::from(part.checksum).is_proven_by(&stored);
        if part.checksum.crc64nvme().is_some() && !is_proven {
            return Err(unproven("put a block"));
        }
        Ok(id.to_base64())
    }

    /// Each block is compared with what was sent with it.
    async fn takes_plain_parts(&self, _object: &NewObject) -> Result<bool> {
        Ok(true)
    }

    async fn list_parts(&self, session: &Session<'_>) -> Result<Option<Vec<StoredPart>>> {
        let blob = self.blob(session.key).block_blob_client();
        let answer = self.answer(async {
            blob.get_block_list(BlockListType::All, None)
                .await?
                .into_model()
        });
        let list = match answer.await {
            Ok(list) => list,
            Err(error) if code(&error) == Some(NOT_FOUND) => return Ok(Some(Vec::new())),
            Err(error) => return Err(fault("list the blocks", error)),
        };
        let committed = list.committed_blocks.into_iter().flatten();
        let blocks = committed.chain(list.uncommitted_blocks.into_iter().flatten());
        // By id: an uncommitted block takes precedence over the committed one that it would replace.
        let parts: BTreeMap<_, _> = blocks
            .filter_map(stored_part)
            .map(|part| (part.receipt.clone(), part))
            .collect();
        let mut parts: Vec<_> = parts.into_values().collect();
        parts.sort_by_key(|part| part.number);
        Ok(Some(parts))
    }

    fn writer(&self, receipt: &str) -> Option<WriterTag> {
        BlockId::from_base64(receipt)?.writer()
    }

    async fn commit(
        &self,
        session: &Session<'_>,
        object: &NewObject,
        parts: &[Part],
    ) -> Result<Commit> {
        let names = parts.iter().map(|part| STANDARD.decode(&part.receipt));
        let names = names
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::internal("read the receipt of a block", error))?;
        // Latest: the blocks are uncommitted, or already committed by a commit whose response was lost.
        let list = BlockLookupList {
            latest: Some(names),
            ..BlockLookupList::default()
        };
        let list = RequestContent::try_from(list)
            .map_err(|error| Error::internal("write a block list", error))?;
        let options = BlockBlobClientCommitBlockListOptions {
            blob_content_type: Some(object.mime.clone()),
            blob_content_md5: object.md5.map(|md5| md5.0.to_vec()),
            metadata: Some(metadata(object)),
            method_options: call_options(
                Timeouts::silence(self.commit_timeout),
                headers(&object.placement),
            ),
            ..BlockBlobClientCommitBlockListOptions::default()
        };
        let blob = self.blob(session.key).block_blob_client();
        let committing = blob.commit_block_list(list, Some(options));
        match within(self.commit_timeout, committing).await {
            Ok(_) => Ok(Commit::Done),
            Err(error) if code(&error) == Some("InvalidBlockList") => Ok(Commit::PartReplaced),
            Err(error) if is_refusal(code(&error)) => Ok(Commit::Refused),
            Err(error) => Err(fault("commit", error)),
        }
    }

    /// Does nothing: Azure has no call for it, and removes uncommitted blocks after a week. Committing and deleting
    /// them would make an object visible for a moment, or delete one that a late commit has just made.
    async fn abort(&self, _session: &Session<'_>) -> Result<()> {
        Ok(())
    }

    async fn list_sessions(
        &self,
        _prefix: &str,
        _after: Option<&str>,
    ) -> Result<Option<SessionPage>> {
        Ok(None)
    }
}
