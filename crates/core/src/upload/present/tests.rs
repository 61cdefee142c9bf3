//! Clients that cut a file in different ways, and are killed at any time: parts of two cuts are never taken for one file.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::upload::{
    Claim, Event, Features, FileMetadata, MAX_CUT, Md5, PART_SIZE, StoreKind, StoreLimits,
    Timestamp, UploadId,
};

const LIMITS: StoreLimits = StoreLimits {
    max_parts: 50_000,
    max_part_size: u64::MAX / 100_000,
    max_object_size: u64::MAX,
    equal_parts: false,
};

/// Azure.
const CAPABILITIES: Capabilities = Capabilities {
    creates_sessions: false,
    one_part_per_number: false,
    lists_part_digests: false,
    names_writers: true,
    binds_part_size: false,
    computes_object_md5: false,
    binds_placement: false,
    features: Features::NONE,
};

/// What one client does before it is killed.
#[derive(Debug, Clone)]
struct Client {
    part_size: u64,
    /// Of each part that it signs, in the order of the numbers: whether it is put before the client is killed.
    puts: Vec<bool>,
    /// Whether the client honours the part size of the answer. Otherwise it cuts the file in its own way.
    honours_plan: bool,
}

/// A record, and the blocks under its key: the cut and number in their names, their size, and the bytes that they have.
struct World {
    upload: Upload,
    blocks: BTreeMap<(u8, u32), (u64, Content)>,
}

/// The bytes of a block: a range of the file.
type Content = (u64, u64);

impl World {
    fn new(file_size: u64) -> Self {
        let id = UploadId::generate(None);
        let upload = Upload {
            file: FileMetadata {
                file_size: Some(file_size),
                ..FileMetadata::default()
            },
            is_cut_by_client: true,
            opaque_file_id: true,
            ..Upload::begun(
                id,
                StoreKind::Azure,
                Plan::known(file_size, PART_SIZE, &LIMITS).unwrap(),
                Timestamp(0),
            )
        };
        Self {
            upload,
            blocks: BTreeMap::new(),
        }
    }

    fn file_size(&self) -> u64 {
        self.upload.file.file_size.unwrap()
    }

    fn listed(&self) -> Vec<StoredPart> {
        let parts = self
            .blocks
            .iter()
            .map(|((cut, number), (size, _))| StoredPart {
                receipt: format!("{cut}{number:05}"),
                number: Some(*number),
                writer: None,
                cut: *cut,
                md5: None,
                crc64nvme: None,
                size: *size,
            });
        parts.collect()
    }

    fn present(&self) -> Present {
        Present::new(&self.upload, &CAPABILITIES, &self.listed())
    }

    /// An identical create.
    fn create(&mut self) -> Present {
        let present = self.present();
        if present.is_mixed {
            let cut = self.upload.cut;
            self.upload.apply(Event::Recut { cut }).unwrap();
        }
        present
    }

    /// Signs a part, as every state store does; the name of its block.
    fn sign(&mut self, number: u32, content: Content) -> (u8, u32) {
        let claim = Claim {
            number,
            md5: Some(Md5::of(format!("{content:?}").as_bytes())),
            signed_for: Some(0),
        };
        if self
            .upload
            .claims
            .show_another_cut(self.upload.cut, [&claim])
        {
            self.upload.cut = self.upload.cut.saturating_add(1);
        }
        self.upload.claims.insert(Claim {
            signed_for: Some(self.upload.cut),
            ..claim
        });
        self.upload.unproven = self.upload.unproven.filter(|part| *part != number);
        (self.upload.cut, number)
    }

    /// A client creates the upload, and signs and sends in order what the answer does not list. If it reaches its end, it
    /// finishes: whether the object is the file, or `None` if there is none.
    fn run(&mut self, client: &Client) -> Option<bool> {
        let mut present = self.create();
        let shown = present.plan.part_size().unwrap();
        let unproven = present.take_unproven(&self.upload);
        let unproven = unproven.or(self.upload.unproven);
        let found = present.parts;
        let part_size = match client.honours_plan && !found.is_empty() {
            true => shown,
            false => client.part_size,
        };
        let with = u32::try_from(found.len()).unwrap();
        let continued = Event::Continued { with, unproven };
        self.upload.apply(continued).unwrap();
        let mut has_put_all = true;
        let mut puts = client.puts.iter();
        let count = u32::try_from(self.file_size().div_ceil(part_size)).unwrap();
        for number in (1..=count).filter(|number| !found.contains_key(number)) {
            let is_put = puts.next()?;
            has_put_all &= is_put;
            let offset = u64::from(number - 1) * part_size;
            let size = part_size.min(self.file_size() - offset);
            let content = (offset, size);
            let name = self.sign(number, content);
            if *is_put {
                self.blocks.insert(name, (size, content));
            }
        }
        has_put_all.then(|| self.object()).flatten()
    }

    /// Whether the parts would make an object, and whether that is the file.
    fn object(&self) -> Option<bool> {
        let present = self.present();
        let count = present.plan.part_count(self.file_size())?;
        if present.parts.len() < count as usize {
            return None;
        }
        let mut end = 0;
        let is_right = present.parts.iter().all(|(number, _)| {
            let (_, (offset, size)) = self.blocks[&(self.upload.cut, *number)];
            let is_next = offset == end;
            end += size;
            is_next
        });
        Some(is_right && end == self.file_size())
    }
}

fn client() -> impl Strategy<Value = Client> {
    let puts = prop::collection::vec(prop::bool::weighted(0.8), 0..14);
    (1u64..14, puts, any::<bool>()).prop_map(|(part_size, puts, honours_plan)| Client {
        part_size,
        puts,
        honours_plan,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn parts_of_two_cuts_are_never_taken_for_one_file(
        file_size in 1u64..40,
        clients in prop::collection::vec(client(), 1..6),
    ) {
        let mut world = World::new(file_size);
        for client in &clients {
            let finished = world.run(client);
            prop_assert_ne!(finished, Some(false), "{:?}", world.blocks);
        }
    }

    #[test]
    fn a_client_that_sends_everything_has_the_file(
        file_size in 1u64..40,
        earlier in prop::collection::vec(client(), 0..6),
        part_size in 1u64..14,
    ) {
        let mut world = World::new(file_size);
        for client in &earlier {
            world.run(client);
        }
        let last = Client {
            part_size,
            puts: vec![true; 40],
            honours_plan: true,
        };
        // What it sends can begin a new cut, in which the parts that it sent before do not count: it sends these again.
        let finished = (0..4).find_map(|_| world.run(&last));
        prop_assert!(world.upload.cut > MAX_CUT || finished == Some(true), "{:?}", world.blocks);
    }
}

#[test]
fn the_third_part_of_one_client_is_not_the_last_one_of_another() {
    let mut world = World::new(12);
    let two = |puts: &[bool]| Client {
        part_size: 2,
        puts: puts.to_vec(),
        honours_plan: false,
    };
    let five = |puts: &[bool]| Client {
        part_size: 5,
        ..two(puts)
    };
    // Of three parts of 2, only the third arrives. It could also be the last one after parts of 5.
    world.run(&two(&[false, false, true]));
    assert_eq!((world.present().parts.len(), world.object()), (0, None));
    world.run(&five(&[true, true, false]));
    assert_eq!(
        world.object(),
        None,
        "the third part is still the other one"
    );
    world.run(&five(&[true]));
    assert_eq!(world.object(), Some(true));
}

#[test]
fn a_reported_part_is_not_a_signed_one() {
    let mut world = World::new(12);
    world.run(&Client {
        part_size: 5,
        puts: vec![true],
        honours_plan: false,
    });
    world.blocks.insert((0, 2), (5, (5, 5)));
    world.upload.claims.insert(Claim {
        number: 2,
        md5: Some(Md5::of(b"")),
        signed_for: None,
    });
    assert_eq!(
        world.present().parts.keys().copied().collect::<Vec<_>>(),
        [1]
    );
}

#[test]
fn a_part_with_another_etag_than_the_claimed_md5_has_no_checksum_and_is_named_by_its_crc64() {
    let claim = |number| Claim {
        number,
        md5: Some(Md5::of(b"claimed")),
        signed_for: Some(0),
    };
    let listed = |number, bytes: &[u8]| StoredPart {
        receipt: Md5::of(bytes).to_hex(),
        number: Some(number),
        writer: None,
        cut: 0,
        md5: Some(Md5::of(bytes)),
        crc64nvme: Some(Crc64Nvme::of(bytes)),
        size: PART_SIZE,
    };
    let capabilities = Capabilities {
        creates_sessions: true,
        one_part_per_number: true,
        lists_part_digests: true,
        names_writers: false,
        binds_part_size: true,
        ..CAPABILITIES
    };
    let upload = Upload {
        is_cut_by_client: false,
        session: Some("session".into()),
        integrity: Integrity::Crc64Nvme,
        claims: [claim(1), claim(2)].into_iter().collect(),
        ..World::new(2 * PART_SIZE).upload
    };
    let parts = [listed(1, b"claimed"), listed(2, b"other")];
    let present = Present::new(&upload, &capabilities, &parts);
    let crc64 = |bytes| Some(Checksum::from(Crc64Nvme::of(bytes)));
    assert_eq!(present.parts[&1].checksum, crc64(b"claimed"));
    assert_eq!(present.parts[&2].checksum, None);
    let named = present.named().into_iter().map(|part| part.checksum);
    assert!(named.eq([crc64(b"claimed"), crc64(b"other")]));
}
