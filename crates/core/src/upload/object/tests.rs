//! Properties of [`verify`].

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::upload::{
    Claim, Crc64Nvme, Features, FileMetadata, MIB, PART_SIZE, Part, Parts, Plan, StoreKind,
    StoreLimits, Timestamp, WriterTag, keys,
};

/// A file, and how it was stored.
#[derive(Debug, Clone)]
struct Case {
    size: u64,
    is_size_declared: bool,
    is_promised: bool,
    /// Clients put the parts, and the store did not confirm their MD5s.
    is_claimed: bool,
    is_azure: bool,
    has_metadata: bool,
    /// The store encrypts with KMS, or its entity tags are something else than digests.
    is_opaque: bool,
}

prop_compose! {
    fn any_case()(
        size in prop_oneof![1..PART_SIZE, PART_SIZE..5 * PART_SIZE],
        flags in any::<[bool; 6]>(),
    ) -> Case {
        let [is_size_declared, is_promised, is_claimed, is_azure, has_metadata, is_opaque] = flags;
        Case {
            size,
            // Signed uploads always declare the size, and nothing else identifies an object without metadata.
            is_size_declared: is_size_declared || is_claimed || !has_metadata,
            is_promised,
            is_claimed,
            is_azure,
            has_metadata,
            is_opaque: is_opaque && !is_azure,
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
            binds_part_size: !self.is_azure,
            computes_object_md5: !self.is_azure,
            binds_placement: !self.is_azure,
            features: Features::NONE,
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
            file: FileMetadata {
                file_name: "film.mp4".into(),
                file_size: self.is_size_declared.then_some(self.size),
                file_id: self.is_promised.then(|| self.md5().to_string()),
                ..FileMetadata::default()
            },
            storage_id: "media".into(),
            object_key: keys::object_key("", &id, "film.mp4"),
            session: (!self.is_whole()).then(|| "session".into()),
            expires_at: Timestamp(2),
            ..Upload::begun(id, StoreKind::S3, plan, Timestamp(1))
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
                checksum: Some(md5.into()),
                receipt: if is_azure {
                    format!("block {number}")
                } else {
                    md5.to_hex()
                },
                digest: None,
            })
        })
    }

    /// The object that the upload makes.
    fn object(&self, upload: &Upload) -> StoredObject {
        let mut metadata = BTreeMap::new();
        if self.has_metadata {
            metadata.insert("uploadid".to_owned(), upload.id.to_string());
            metadata.insert("uploadsize".to_owned(), self.size.to_string());
            if self.is_promised {
                metadata.insert("uploadmd5".to_owned(), self.md5().to_hex());
            }
        }
        let md5s = self.parts(upload).filter_map(|part| part.md5());
        let has_composite = !self.is_whole() && !self.is_azure;
        let reported = |md5| {
            if self.is_opaque {
                Md5::of(b"opaque")
            } else {
                md5
            }
        };
        let composite = CompositeMd5::of(md5s);
        StoredObject {
            etag: "etag".into(),
            size: self.size,
            md5: self.is_whole().then(|| reported(self.md5())),
            composite: has_composite.then(|| CompositeMd5 {
                md5: reported(composite.md5),
                ..composite
            }),
            has_digests: !self.is_opaque,
            metadata,
            ..StoredObject::default()
        }
    }

    fn blocks(&self, upload: &Upload) -> Option<Vec<StoredPart>> {
        let writer = WriterTag::from_bits(7).filter(|_| !self.is_claimed);
        let blocks = self.parts(upload).map(|part| StoredPart {
            receipt: part.receipt,
            number: Some(part.number),
            writer,
            cut: 0,
            md5: None,
            crc64nvme: None,
            size: part.size,
        });
        (self.is_azure && !self.is_whole()).then(|| blocks.collect())
    }

    fn verdict(&self, upload: &Upload, found: Option<&StoredObject>) -> Verdict {
        let blocks = self.blocks(upload);
        let expected = Expected::of_record(upload);
        verify(&expected, &self.capabilities(), found, blocks.as_deref())
    }

    /// The verdict about an object that existed before a single put.
    fn verdict_of_put(&self, upload: &Upload, found: &StoredObject) -> Verdict {
        let expected = Expected::of_single_put(upload, self.size, self.md5().into(), true);
        verify(&expected, &self.capabilities(), Some(found), None)
    }
}

fn claim(part: &Part) -> Claim {
    Claim {
        number: part.number,
        md5: part.md5(),
        signed_for: Some(0),
    }
}

#[test]
fn what_the_store_copied_whole_counts_only_if_its_md5_proves_it() {
    let case = Case {
        size: 3 * PART_SIZE,
        is_size_declared: true,
        is_promised: true,
        is_claimed: false,
        is_azure: false,
        has_metadata: true,
        is_opaque: false,
    };
    for session in [None, Some("session".to_owned())] {
        let copy = Upload {
            copy_of: Some(UploadId::generate(None)),
            parts: Parts::default(),
            session,
            ..case.upload()
        };
        let mut object = StoredObject {
            composite: None,
            md5: Some(case.md5()),
            ..case.object(&copy)
        };
        object.metadata.remove("uploadmd5");
        assert_eq!(case.verdict(&copy, Some(&object)), Verdict::Same);
        let (expected, found) = (case.md5(), Md5::of(b"other"));
        object.md5 = Some(found);
        let other = Difference::Md5 { expected, found };
        let verdict = case.verdict(&copy, Some(&object));
        assert_eq!(verdict, Verdict::Different(other));
        object.has_digests = false;
        let verdict = case.verdict(&copy, Some(&object));
        assert_eq!(verdict, Verdict::Different(Difference::Parts));
        object.md5 = Some(expected);
        assert_eq!(case.verdict(&copy, Some(&object)), Verdict::Same);
    }
}

proptest! {
    #[test]
    fn the_object_that_the_upload_made_is_the_same(case in any_case()) {
        let upload = case.upload();
        let object = case.object(&upload);
        prop_assert_eq!(case.verdict(&upload, Some(&object)), Verdict::Same);
    }

    #[test]
    fn a_missing_object_is_absent(case in any_case()) {
        prop_assert_eq!(case.verdict(&case.upload(), None), Verdict::Absent);
    }

    #[test]
    fn an_object_with_another_size_is_different(case in any_case(), size in 0..6 * PART_SIZE) {
        let upload = case.upload();
        prop_assume!(size != case.size);
        // If the size is unknown, only a smaller object is different.
        prop_assume!(upload.settled_size().is_some() || size < case.size);
        let object = StoredObject { size, ..case.object(&upload) };
        let different = Verdict::Different(Difference::Size(size));
        prop_assert_eq!(case.verdict(&upload, Some(&object)), different);
    }

    #[test]
    fn an_object_that_was_cut_off_after_its_metadata_was_written_is_different(case in any_case()) {
        prop_assume!(case.has_metadata);
        let upload = case.upload();
        let mut object = case.object(&upload);
        object.metadata.insert("uploadsize".to_owned(), (case.size + 1).to_string());
        let different = Verdict::Different(Difference::Size(case.size));
        prop_assert_eq!(case.verdict(&upload, Some(&object)), different);
    }

    #[test]
    fn the_object_of_another_upload_is_different(case in any_case()) {
        let upload = case.upload();
        let mut object = case.object(&upload);
        object.metadata.insert("uploadid".to_owned(), UploadId::generate(None).to_string());
        let different = Verdict::Different(Difference::Upload);
        prop_assert_eq!(case.verdict(&upload, Some(&object)), different);
    }

    #[test]
    fn a_small_object_with_another_md5_is_different_only_if_entity_tags_are_digests(case in any_case()) {
        prop_assume!(case.is_whole() && case.is_promised);
        let upload = case.upload();
        let (expected, found) = (case.md5(), Md5::of(b"other"));
        let object = StoredObject { md5: Some(found), ..case.object(&upload) };
        let verdict = if case.is_opaque {
            Verdict::Same
        } else {
            Verdict::Different(Difference::Md5 { expected, found })
        };
        prop_assert_eq!(case.verdict(&upload, Some(&object)), verdict);
    }

    #[test]
    fn an_object_whose_metadata_has_another_md5_is_different(case in any_case()) {
        prop_assume!(case.is_promised);
        let upload = case.upload();
        let (expected, found) = (case.md5(), Md5::of(b"other"));
        let mut object = StoredObject { md5: None, ..case.object(&upload) };
        object.metadata.insert("uploadid".to_owned(), upload.id.to_string());
        object.metadata.insert("uploadmd5".to_owned(), found.to_hex());
        let different = Verdict::Different(Difference::Md5 { expected, found });
        prop_assert_eq!(case.verdict(&upload, Some(&object)), different);
    }

    #[test]
    fn an_object_of_other_parts_is_different(case in any_case(), which in any::<prop::sample::Index>()) {
        prop_assume!(!case.is_whole());
        let upload = case.upload();
        let mut object = case.object(&upload);
        let mut blocks = case.blocks(&upload);
        if let Some(blocks) = &mut blocks {
            let at = which.index(blocks.len());
            blocks[at].size += 1;
        } else {
            prop_assume!(upload.part_count().is_some() && !case.is_opaque);
            object.composite = Some(CompositeMd5::of([Md5::of(b"other")]));
        }
        let expected = Expected::of_record(&upload);
        let verdict = verify(&expected, &case.capabilities(), Some(&object), blocks.as_deref());
        prop_assert_eq!(verdict, Verdict::Different(Difference::Parts));
    }

    #[test]
    fn an_object_that_existed_before_a_put_is_the_same_if_its_md5_proves_it(case in any_case()) {
        prop_assume!(case.is_whole());
        let upload = case.upload();
        let mut object = case.object(&upload);
        let is_proven = !case.is_opaque || case.has_metadata && case.is_promised;
        let verdict = if is_proven { Verdict::Same } else { Verdict::Unknown };
        prop_assert_eq!(case.verdict_of_put(&upload, &object), verdict);
        object.md5 = Some(case.md5());
        prop_assert_eq!(case.verdict_of_put(&upload, &object), Verdict::Same);
    }

    #[test]
    fn an_object_with_another_crc64_than_its_parts_is_different(case in any_case(), is_reported: bool) {
        let case = Case { is_claimed: false, is_size_declared: true, ..case };
        prop_assume!(!case.is_whole());
        let mut upload = case.upload();
        let compared = upload.parts.iter().map(|part| Part {
            checksum: Some(Crc64Nvme(u64::from(part.number)).into()),
            ..part.clone()
        });
        upload.parts = compared.collect();
        let whole = upload.parts.crc64nvme(case.size).unwrap();
        let with = |crc64: Crc64Nvme| {
            let mut object = case.object(&upload);
            if is_reported {
                object.crc64nvme = Some(crc64);
            } else {
                object.metadata.insert("uploadcrc64nvme".to_owned(), crc64.to_string());
            }
            case.verdict(&upload, Some(&object))
        };
        prop_assert_eq!(with(whole), Verdict::Same);
        prop_assert_eq!(with(Crc64Nvme(!whole.0)), Verdict::Different(Difference::Crc64Nvme));
    }

    #[test]
    fn metadata_proves_nothing_that_was_put_with_a_crc64(case in any_case()) {
        prop_assume!(case.is_whole());
        let upload = case.upload();
        let digests = Digests { md5: Some(case.md5()), crc64nvme: Some(Crc64Nvme(7)) };
        let mut object = StoredObject { md5: None, ..case.object(&upload) };
        object.metadata.insert("uploadid".to_owned(), upload.id.to_string());
        object.metadata.insert("uploadmd5".to_owned(), case.md5().to_hex());
        let verdict = |object: &StoredObject, integrity| {
            let put = Expected::of_single_put(&upload, case.size, digests, true);
            verify(&put.put_with(integrity), &case.capabilities(), Some(object), None)
        };
        prop_assert_eq!(verdict(&object, Integrity::Md5), Verdict::Same);
        prop_assert_eq!(verdict(&object, Integrity::Crc64Nvme), Verdict::Unknown);
        object.crc64nvme = digests.crc64nvme;
        prop_assert_eq!(verdict(&object, Integrity::Crc64Nvme), Verdict::Same);
    }
}
