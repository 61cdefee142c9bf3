//! Storages and limits.

use std::sync::Arc;

use upload_gateway_client::proto::v1;
use upload_gateway_core::gateway::{Caller, Limits, OwnerLimits, Settings, Storage};

use super::{bytes, number, residence, seconds};

/// The storages of a caller, of which the one with this id is the default one.
pub(in crate::grpc) fn storages(
    storages: &[(Arc<Storage>, Limits)],
    default: Option<&str>,
) -> v1::ListStoragesResponse {
    let storage = |(storage, limits): &(Arc<Storage>, Limits)| v1::Storage {
        storage_id: storage.id.clone(),
        residence: residence(limits.store_kind).into(),
        is_default: Some(storage.id.as_str()) == default,
        extensions: storage.extensions.clone(),
        mimes: storage.mimes.clone(),
        max_file_size: bytes(limits.max_file_size),
        expire_after: storage.expiry.default.map(seconds),
        max_expire_after: storage.expiry.max.map(seconds),
    };
    v1::ListStoragesResponse {
        storages: storages.iter().map(storage).collect(),
    }
}

/// What clients must respect for a storage: the limits of the storage and of the gateway.
pub(in crate::grpc) fn limits(limits: Limits, settings: &Settings, caller: &Caller) -> v1::Limits {
    v1::Limits {
        storage_id: limits.storage_id,
        residence: residence(limits.store_kind).into(),
        max_file_size: bytes(limits.max_file_size),
        max_unknown_file_size: bytes(limits.max_unknown_file_size),
        part_size: bytes(limits.part_size),
        max_single_put_size: bytes(limits.max_single_put_size),
        max_message_size: bytes(settings.max_message_size),
        preferred_chunk_size: bytes(limits.preferred_chunk_size),
        idle_timeout_seconds: bytes(settings.idle_timeout.as_secs()),
        expiry_seconds: bytes(settings.upload_expiry.as_secs()),
        min_rate: bytes(settings.min_rate),
        min_rate_seconds: bytes(settings.min_rate_window.as_secs()),
        max_tags: number(settings.max_tags),
        max_tag_size: number(settings.max_tag_size),
        max_open_uploads: bytes(settings.max_open_uploads),
        max_connections: number(settings.edges.connections),
        max_calls_per_connection: number(settings.edges.calls_per_connection),
        max_calls: number(settings.edges.calls),
        max_lists: number(settings.edges.lists),
        max_watches: number(settings.edges.watches),
        max_downloads: number(settings.edges.downloads),
        per_owner: (!caller.owner.tenant.is_empty()).then(|| owner_limits(&settings.per_owner)),
    }
}

fn owner_limits(limits: &OwnerLimits) -> v1::OwnerLimits {
    v1::OwnerLimits {
        max_open_uploads: bytes(limits.open_uploads),
        max_streams: number(limits.streams),
        max_lists: number(limits.lists),
        max_watches: number(limits.watches),
        max_downloads: number(limits.downloads),
    }
}
