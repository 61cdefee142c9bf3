//! Records as state stores keep them.

use prost::Message;
use upload_gateway_core::upload::{Timestamp, Upload};

use crate::{
    grpc,
    state::{redb, redis},
};

/// The keys of a record in Redis, as a JSON object, are refused, or are the same after they are read and written again.
pub fn redis_record(bytes: &[u8]) {
    redis::fuzzing::records(bytes).iter().for_each(look_at);
}

/// A redb record and the slots of its parts, as a JSON array, are refused, or are the same after they are read and written again.
pub fn redb_record(bytes: &[u8]) {
    redb::fuzzing::record(bytes).iter().for_each(look_at);
}

/// Calls every method that reads a record.
fn look_at(upload: &Upload) {
    let committed_size = upload.committed_size();
    let _ = (upload.settled_size(), upload.promised_md5());
    let _ = (upload.due_at(), upload.expiry());
    let _ = upload.has_expired(Timestamp(1_700_000_000_000));
    let _ = upload.fits_single_put(committed_size);
    let _ = upload.part_count();
    for number in [0, 1, 2, 1_001, u32::MAX] {
        if let Some(span) = upload.span(number) {
            assert!(span.offset.checked_add(span.size).is_some());
        }
        if let Some(span) = upload.plan.span(number) {
            assert_eq!(upload.plan.part_beginning_at(span.offset), Some(number));
        }
    }
    let _ = upload.plan.part_beginning_at(committed_size);
    let message = grpc::fuzzing::shown(upload);
    let read = Message::decode(&*message.encode_to_vec());
    assert_eq!(read, Ok(message));
}
