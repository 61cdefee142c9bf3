//! How an object is stored.

use std::collections::HashMap;

use upload_gateway_client::proto::v1;
use upload_gateway_core::upload::{Encryption, Placement};

/// What a caller asks for. An empty text is not set.
pub(super) fn from_wire(wire: v1::Placement) -> Placement {
    use v1::encryption::Method;
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let method = wire.encryption.and_then(|encryption| encryption.method);
    Placement {
        metadata: wire.metadata.into_iter().collect(),
        object_tags: wire.object_tags.into_iter().collect(),
        cache_control: text(wire.cache_control),
        content_disposition: text(wire.content_disposition),
        content_encoding: text(wire.content_encoding),
        storage_class: text(wire.storage_class),
        encryption: method.map(|method| match method {
            Method::SseS3(()) => Encryption::SseS3,
            Method::SseKms(kms) => Encryption::SseKms {
                key_id: text(kms.key_id),
                bucket_key: kms.bucket_key,
            },
            Method::Scope(scope) => Encryption::Scope(scope),
        }),
    }
}

/// What a record keeps. `None` if nothing was asked for.
pub(super) fn to_wire(placement: &Placement) -> Option<v1::Placement> {
    use v1::encryption::Method;
    if placement.is_default() {
        return None;
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let method = placement
        .encryption
        .clone()
        .map(|encryption| match encryption {
            Encryption::SseS3 => Method::SseS3(()),
            Encryption::SseKms { key_id, bucket_key } => Method::SseKms(v1::SseKms {
                key_id: key_id.unwrap_or_default(),
                bucket_key,
            }),
            Encryption::Scope(scope) => Method::Scope(scope),
        });
    Some(v1::Placement {
        metadata: placement
            .metadata
            .clone()
            .into_iter()
            .collect::<HashMap<_, _>>(),
        object_tags: placement.object_tags.clone().into_iter().collect(),
        cache_control: text(&placement.cache_control),
        content_disposition: text(&placement.content_disposition),
        content_encoding: text(&placement.content_encoding),
        storage_class: text(&placement.storage_class),
        encryption: method.map(|method| v1::Encryption {
            method: Some(method),
        }),
    })
}
