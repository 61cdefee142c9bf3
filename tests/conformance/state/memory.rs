//! Cases for removing records of COMPLETE uploads, which stores that keep records in memory do.

use upload_gateway_core::{
    state::{Index, Listing, Selection, StateStore, Update},
    upload::{Owner, Timestamp, Upload, UploadId},
};

use super::{ended::complete_of, samples::*, sweeping::due};

/// The node that has the least memory left: in a Cluster, not always the same one. `None` if records are not in memory.
async fn fullest_node(store: &dyn StateStore) -> Option<String> {
    Some(store.memory().await.unwrap()?.node)
}

/// All COMPLETE uploads on a node.
async fn sampled(store: &dyn StateStore, node: &str) -> Vec<Upload> {
    let (mut uploads, mut position): (Vec<Upload>, _) = (Vec::new(), 0);
    loop {
        let sample = store.sample(node, position).await.unwrap();
        for upload in sample.uploads {
            // A key can come twice.
            if uploads.iter().all(|known| known.id != upload.id) {
                uploads.push(upload);
            }
        }
        position = sample.next;
        if position == 0 {
            return uploads;
        }
    }
}

async fn listed(store: &dyn StateStore, owner: &Owner) -> Vec<UploadId> {
    let mut found = Vec::new();
    for listing in [owner.clone().into(), Listing::Tenant(owner.tenant.clone())] {
        let count = store.count(&listing).await.unwrap();
        for index in [Index::All, Index::Name(String::new())] {
            let selection = Selection {
                listing: listing.clone(),
                index,
                created: Default::default(),
            };
            let entries = store.entries(&selection, None, 1_000).await.unwrap();
            assert_eq!(entries.len() as u64, count);
            found = entries
                .iter()
                .map(|entry| UploadId::from_bytes(entry.id))
                .collect();
        }
    }
    found.sort();
    found
}

pub(crate) async fn a_complete_record_is_removed_with_all_its_entries(store: &dyn StateStore) {
    let mut all = Vec::new();
    for _ in 0..30 {
        all.push(complete_of(store, &owner()).await);
    }
    let Some(node) = fullest_node(store).await else {
        assert!(!store.remove(&all[0]).await.unwrap());
        assert_eq!(get(store, &all[0].id).await, all[0]);
        return;
    };
    let sampled = sampled(store, &node).await;
    assert!(!sampled.is_empty());
    for upload in &sampled {
        assert!(all.contains(upload), "{upload:?}");
        // Also if the answer to the first call was lost.
        for _ in 0..2 {
            assert!(store.remove(upload).await.unwrap());
        }
        assert_eq!(store.get(&upload.id).await.unwrap(), None);
    }
    let is_left = |upload: &&Upload| !sampled.contains(upload);
    let mut left: Vec<_> = all
        .iter()
        .filter(is_left)
        .map(|one| one.id.clone())
        .collect();
    left.sort();
    assert_eq!(listed(store, &owner()).await, left);
    assert!(due(store, Timestamp::never(), 9).await.is_empty());
    assert_eq!(self::sampled(store, &node).await, []);
}

pub(crate) async fn a_record_that_has_changed_is_not_removed(store: &dyn StateStore) {
    let seen = complete_of(store, &owner()).await;
    let mut changed = Upload {
        moves_to: Some(UploadId::generate(None)),
        ..seen.clone()
    };
    let updated = store.update(&changed, changed.writer).await.unwrap();
    assert_eq!(updated, Update::Updated(3));
    changed.version = 3;
    assert!(!store.remove(&seen).await.unwrap());
    assert_eq!(get(store, &seen.id).await, changed);
    assert_eq!(listed(store, &owner()).await, [seen.id]);

    let open = sized(upload(&owner()), 3);
    create(store, &open).await;
    assert!(!store.remove(&open).await.unwrap());
    assert_eq!(get(store, &open.id).await, open);
    if let Some(node) = fullest_node(store).await {
        let sampled = sampled(store, &node).await;
        assert!(sampled.iter().all(|upload| upload.id != open.id));
    }
}
