//! Entries of a block list.

use azure_storage_blob::models::Block;
use base64::{Engine, engine::general_purpose::STANDARD};
use upload_gateway_core::{blobs::StoredPart, upload::Part};

use super::block_id::BlockId;

/// A block of the store's list; `None` if it has no name or size.
pub(super) fn stored_part(block: Block) -> Option<StoredPart> {
    let (name, size) = (block.name?, block.size?);
    let id = BlockId::from_bytes(&name);
    Some(StoredPart {
        receipt: STANDARD.encode(&name),
        number: id.map(BlockId::number),
        writer: id.and_then(BlockId::writer),
        cut: id.map_or(0, BlockId::cut),
        md5: None,
        crc64nvme: None,
        size: size.unsigned_abs(),
    })
}

/// The body of a commit. Receipts are base64, which needs no escaping in XML.
pub(super) fn block_list(parts: &[Part]) -> String {
    let mut body = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<BlockList>");
    for part in parts {
        body.extend(["<Latest>", &part.receipt, "</Latest>"]);
    }
    body.push_str("</BlockList>\n");
    body
}
