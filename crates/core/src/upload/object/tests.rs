//! Properties of [`verify`].

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::upload::{
    Claim, Claims, FileMetadata, MIB, Owner, PART_SIZE, Part, Parts, Phase, Plan, StoreKind,
    StoreLimits, Timestamp, WriterTag, policy,
};

const ALL: [Strictness; 4] = [
    Strictness::Commit,
    Strictness::Inspection,
    Strictness::Rebuild,
    Strictness::SinglePut,
];

/// A file and how it came into the store.
#[derive(Debug, Clone)]
struct Case {
    size: u64,
    is_size_declared: bool,
    is_promised: bool,
    /// Clients put the parts, and the store did not confirm their MD5s.
    is_claimed: bool,
    is_azure: bool,
    has_metadata: bool,
}

prop_compose! {
    fn any_case()(
        size in prop_oneof![1..PART_SIZE, PART_SIZE..5 * PART_SIZE],
        flags in any::<[bool; 5]>(),
    ) -> Case {
        let [is_size_declared, is_promised, is_claimed, is_azure, has_metadata] = flags;
        Case {
            size,
            // Signed uploads always declare it, and an object without metadata is recognised by nothing else.
            is_size_declared: is_size_declared || is_claimed || !has_metadata,
            is_promised,
            is_claimed,
            is_azure,
            has_metadata,
        }
    }
}

impl Case {
    fn md5(&self) -> Md5 {
        Md5::of(&self.size.to_be_bytes())
    }

    fn is_whole(&self) -> bool {
        self.size <= SINGLE_PUT_MAX
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            creates_sessions: !self.is_azure,
            one_part_per_number: !self.is_azure,
            lists_part_digests: !self.is_azure,
            names_writers: self.is_azure,
            computes_object_md5: !self.is_azure,
        }
    }

    fn upload(&self) -> Upload {
        let id = UploadId::generate(None);
        let limits = StoreLimits {
            max_parts: 10_000,
            max_part_size: 64 * MIB,
            max_object_size: u64::MAX,
            equal_parts: false,
        };
        let plan = Plan::known(self.size, PART_SIZE, &limits).unwrap();
        let mut upload = Upload {
            version: 1,
            phase: Phase::Open,
            file: FileMetadata {
                file_name: "film.mp4".into(),
                file_size: self.is_size_declared.then_some(self.size),
                file_id: self.is_promised.then(|| self.md5().to_string()),
                ..FileMetadata::default()
            },
            owner: Owner::default(),
            storage_id: "media".into(),
            store_kind: StoreKind::S3,
            object_key: policy::object_key("", &id, "film.mp4"),
            plan,
            fingerprint: None,
            session: Some("session".into()),
            writer: None,
            lease: None,
            parts: Parts::default(),
            claims: Claims::default(),
            opaque_file_id: false,
            object: None,
            created_at: Timestamp(1),
            updated_at: Timestamp(1),
            expires_at: Timestamp(2),
            ends_at: Timestamp::never(),
            swept: false,
            id,
        };
        let parts: Vec<Part> = self.parts(&upload).collect();
        if self.is_claimed {
            upload.claims = parts.iter().map(claim).collect();
        } else {
            upload.parts = parts.into_iter().collect();
        }
        upload
    }

    fn parts(&self, upload: &Upload) -> impl Iterator<Item = Part> {
        let plan = upload.plan.clone();
        let (size, is_azure) = (self.size, self.is_azure);
        (1..).map_while(move |number| {
            let span = plan.span(number).filter(|span| span.offset < size)?;
            let md5 = Md5::of(&number.to_be_bytes());
            Some(Part {
                number,
                offset: span.offset,
                size: span.size.min(size - span.offset),
                md5: Some(md5),
                receipt: if is_azure {
                    format!("block {number}")
                } else {
                    md5.to_hex()
                },
                digest: None,
            })
        })
    }

    /// The object as the upload makes it.
    fn object(&self, upload: &Upload) -> StoredObject {
        let id = upload.id.to_string();
        let metadata = self.has_metadata.then(|| ("upload_id".to_owned(), id));
        let md5s = self.parts(upload).filter_map(|part| part.md5);
        let has_composite = !self.is_whole() && !self.is_azure;
        StoredObject {
            etag: "etag".into(),
            size: self.size,
            md5: self.is_whole().then(|| self.md5()),
            composite: has_composite.then(|| CompositeMd5::of(md5s)),
            metadata: metadata.into_iter().collect(),
        }
    }

    fn blocks(&self, upload: &Upload) -> Option<Vec<StoredPart>> {
        let writer = WriterTag::from_bits(7).filter(|_| !self.is_claimed);
        let blocks = self.parts(upload).map(|part| StoredPart {
            receipt: part.receipt,
            number: Some(part.number),
            writer,
            md5: None,
            size: part.size,
        });
        (self.is_azure && !self.is_whole()).then(|| blocks.collect())
    }

    fn verdict(
        &self,
        upload: &Upload,
        found: Option<&StoredObject>,
        blocks: Option<&[StoredPart]>,
        strictness: Strictness,
    ) -> Verdict {
        let expected = match strictness {
            Strictness::SinglePut => Expected::of_single_put(upload, self.size, self.md5()),
            Strictness::Commit | Strictness::Inspection | Strictness::Rebuild => {
                Expected::of_record(upload)
            }
        };
        verify(&expected, &self.capabilities(), found, blocks, strictness)
    }

    fn strictnesses(&self) -> impl Iterator<Item = Strictness> {
        let is_whole = self.is_whole();
        ALL.into_iter()
            .filter(move |one| is_whole || *one != Strictness::SinglePut)
    }
}

fn claim(part: &Part) -> Claim {
    Claim {
        number: part.number,
        md5: part.md5,
    }
}

proptest! {
    #[test]
    fn the_object_that_an_upload_makes_is_the_same(case in any_case()) {
        let upload = case.upload();
        let (object, blocks) = (case.object(&upload), case.blocks(&upload));
        for strictness in case.strictnesses() {
            let verdict = case.verdict(&upload, Some(&object), blocks.as_deref(), strictness);
            prop_assert_eq!(verdict, Verdict::Same, "{:?}", strictness);
        }
    }

    #[test]
    fn no_object_is_absent_and_never_different(case in any_case()) {
        let upload = case.upload();
        for strictness in ALL {
            prop_assert_eq!(case.verdict(&upload, None, None, strictness), Verdict::Absent);
        }
    }

    #[test]
    fn another_size_is_never_the_same(case in any_case(), size in 0..6 * PART_SIZE) {
        let upload = case.upload();
        prop_assume!(size != case.size);
        // Unknown sizes are settled only from below.
        prop_assume!(upload.settled_size().is_some() || size < case.size);
        let object = StoredObject { size, ..case.object(&upload) };
        for strictness in case.strictnesses() {
            let verdict = case.verdict(&upload, Some(&object), None, strictness);
            prop_assert_eq!(verdict, Verdict::Different(Difference::Size(size)));
        }
    }

    #[test]
    fn the_object_of_another_upload_is_different(case in any_case()) {
        let upload = case.upload();
        let metadata = BTreeMap::from([("upload_id".to_owned(), UploadId::generate(None).to_string())]);
        let object = StoredObject { metadata, ..case.object(&upload) };
        for strictness in [Strictness::Commit, Strictness::Inspection, Strictness::Rebuild] {
            let verdict = case.verdict(&upload, Some(&object), None, strictness);
            prop_assert_eq!(verdict, Verdict::Different(Difference::Upload));
        }
    }

    #[test]
    fn another_md5_of_a_small_object_is_different(case in any_case()) {
        prop_assume!(case.is_whole() && case.is_promised);
        let upload = case.upload();
        let (expected, found) = (case.md5(), Md5::of(b"other"));
        let object = StoredObject { md5: Some(found), ..case.object(&upload) };
        for strictness in [Strictness::Inspection, Strictness::Rebuild, Strictness::SinglePut] {
            let verdict = case.verdict(&upload, Some(&object), None, strictness);
            let different = Verdict::Different(Difference::Md5 { expected, found });
            prop_assert_eq!(verdict, different);
        }
    }

    #[test]
    fn other_parts_are_different_to_an_inspection(case in any_case(), which in any::<prop::sample::Index>()) {
        prop_assume!(!case.is_whole());
        let upload = case.upload();
        let mut object = case.object(&upload);
        let mut blocks = case.blocks(&upload);
        if let Some(blocks) = &mut blocks {
            let at = which.index(blocks.len());
            blocks[at].size += 1;
        } else {
            prop_assume!(upload.part_count().is_some());
            object.composite = Some(CompositeMd5::of([Md5::of(b"other")]));
        }
        let verdict = case.verdict(&upload, Some(&object), blocks.as_deref(), Strictness::Inspection);
        prop_assert_eq!(verdict, Verdict::Different(Difference::Parts));
    }
}

#[test]
fn an_object_found_before_a_single_put_is_unknown_without_its_md5() {
    let case = Case {
        size: 5,
        is_size_declared: true,
        is_promised: false,
        is_claimed: false,
        is_azure: false,
        has_metadata: true,
    };
    let upload = case.upload();
    let object = StoredObject {
        md5: None,
        ..case.object(&upload)
    };
    let verdict = case.verdict(&upload, Some(&object), None, Strictness::SinglePut);
    assert_eq!(verdict, Verdict::Unknown);
}
