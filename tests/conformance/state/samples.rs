//! Uploads, parts and times for the cases.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use upload_gateway_core::{
    state::{Creation, StateStore, Times},
    upload::{
        Claim, DigestChoice, Encryption, FileDigest, FileMetadata, Fingerprint, Identity, Md5,
        Origin, Owner, PART_SIZE, Part, Parts, Placement, Plan, Secret, StoreKind, StoreLimits,
        Timestamp, Upload, UploadId, WriterTag,
    },
};

/// The number of parts that Azure accepts.
const LIMITS: StoreLimits = StoreLimits {
    max_parts: 50_000,
    max_part_size: 5 << 30,
    max_object_size: 5 << 40,
    equal_parts: false,
};

/// The current time: stores remove what expired long ago.
pub(crate) fn now() -> Timestamp {
    Timestamp(0).plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
}

/// Now, and expiry in a day.
pub(crate) fn times() -> Times {
    Times {
        now: now(),
        expires_at: now().plus(Duration::from_secs(86_400)),
    }
}

/// A unique owner.
pub(crate) fn owner() -> Owner {
    Owner {
        tenant: "Größe & Söhne".into(),
        subject: format!("{:x}", rand::random::<u64>()),
    }
}

pub(crate) fn writer(number: u32) -> WriterTag {
    WriterTag::from_bits(number).unwrap()
}

/// A new upload of unknown size without a fingerprint, written by writer 1.
pub(crate) fn upload(owner: &Owner) -> Upload {
    let times = times();
    let id = UploadId::generate(None);
    Upload {
        object_key: format!("media/{id}/film.mp4"),
        file: FileMetadata {
            file_name: "später & mehr?.mp4".into(),
            file_mime: "video/mp4".into(),
            file_digest: DigestChoice::Md5,
            tags: vec!["a".into(), "b".into()],
            ..FileMetadata::default()
        },
        owner: owner.clone(),
        storage_id: "media".into(),
        session: Some("session".into()),
        writer: Some(writer(1)),
        origin: Some(Origin(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa2cb902b7-01".into(),
        )),
        expires_at: times.expires_at,
        ends_at: times.now.plus(Duration::from_secs(6 * 86_400)),
        ..Upload::begun(
            id,
            StoreKind::S3,
            Plan::unknown(PART_SIZE, &LIMITS),
            times.now,
        )
    }
}

/// `upload`, with the declared size of `parts` parts of 5 MiB.
pub(crate) fn sized(upload: Upload, parts: u32) -> Upload {
    let size = u64::from(parts) * PART_SIZE;
    Upload {
        file: FileMetadata {
            file_size: Some(size),
            ..upload.file
        },
        plan: Plan::known(size, PART_SIZE, &LIMITS).unwrap(),
        is_cut_by_client: false,
        cut: 0,
        ..upload
    }
}

/// How an object is stored, with every field.
pub(crate) fn placement() -> Box<Placement> {
    Box::new(Placement {
        metadata: [("project".into(), "42".into())].into(),
        object_tags: [("team".into(), "media".into())].into(),
        cache_control: Some("private".into()),
        content_disposition: Some("inline".into()),
        content_encoding: Some("gzip".into()),
        storage_class: Some("STANDARD_IA".into()),
        encryption: Some(Encryption::SseKms {
            key_id: Some("id".into()),
            bucket_key: true,
        }),
    })
}

/// A new upload that the same create finds.
pub(crate) fn findable(owner: &Owner, file_name: &str) -> Upload {
    let (fingerprint, sample) = (fingerprint(owner, file_name), upload(owner));
    Upload {
        id: UploadId::generate(Some(&fingerprint)),
        fingerprint: Some(fingerprint),
        file: FileMetadata {
            placement: placement(),
            ..sample.file
        },
        ..sample
    }
}

fn fingerprint(owner: &Owner, file_name: &str) -> Fingerprint {
    let identity = Identity {
        owner,
        storage_id: "media",
        file_name,
        file_size: 7,
        file_id: "x",
    };
    identity.fingerprint(&Secret::new([1; 32]))
}

/// Part `number` of a plan with parts of 5 MiB, with a digest state as a real one has.
pub(crate) fn part(number: u32) -> Part {
    let mut digest = FileDigest::begin(DigestChoice::Md5).unwrap();
    digest.update(&[7; 64]);
    Part {
        number,
        offset: u64::from(number - 1) * PART_SIZE,
        size: PART_SIZE,
        checksum: Some(Md5::of(&number.to_be_bytes()).into()),
        receipt: format!("{:032x}", u128::from(number)),
        digest: Some(digest.state()),
    }
}

/// The claim of part `number` and its MD5.
pub(crate) fn claim(number: u32) -> Claim {
    Claim {
        number,
        md5: Some(Md5::of(&number.to_be_bytes())),
        signed_for: None,
    }
}

/// The claim of part `number` without an MD5.
pub(crate) fn bare_claim(number: u32) -> Claim {
    Claim {
        number,
        md5: None,
        signed_for: None,
    }
}

/// Stores `upload`, which must be new.
pub(crate) async fn create(store: &dyn StateStore, upload: &Upload) {
    assert_eq!(
        store.create(upload, u64::MAX).await.unwrap(),
        Creation::Created
    );
}

/// The stored record.
pub(crate) async fn get(store: &dyn StateStore, id: &UploadId) -> Upload {
    store.get(id).await.unwrap().expect("the record exists")
}

/// Of the parts `recorded`, which were recorded in this order, the ones with the numbers `shown`.
pub(crate) fn shown(recorded: &[u32], shown: &[u32]) -> Parts {
    let parts: Parts = recorded.iter().map(|&number| part(number)).collect();
    let of_numbers = parts.iter().filter(|part| shown.contains(&part.number));
    Parts::summary(parts.committed(), of_numbers.cloned())
}

/// Records parts for writer 1.
pub(crate) async fn record(
    store: &dyn StateStore,
    id: &UploadId,
    numbers: impl IntoIterator<Item = u32>,
) {
    for number in numbers {
        store
            .record_parts(id, writer(1), 0, &[part(number)], times())
            .await
            .unwrap();
    }
}
