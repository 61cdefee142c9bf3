//! Fuzz targets: every parser of external input, and the signatures.
//!
//! Each target takes bytes and panics if a promise is broken, not only if the code under test panics. `make test` runs the
//! same targets on random bytes and on mutated seeds; `make fuzz` runs them for longer, guided by coverage. Seeds, and the
//! inputs that once broke a promise, are in `fuzz/seeds/<target>/`.

mod names;
mod records;
mod resume_token;

use upload_gateway_core::{
    blobs::{
        NewObject, Session,
        sign::{ReadVerb, ToSign},
    },
    upload::{
        FileMetadata, Integrity, MIB, Md5, PART_SIZE, Part, Plan, StoreKind, StoreLimits,
        Timestamp, Upload, UploadId, keys, policy,
    },
};

pub use self::{
    names::file_name,
    records::{redb_record, redis_record},
    resume_token::resume_token,
};
pub use crate::{
    auth::{certificate_names, fuzzing::credential_headers, token_claims},
    blobs::{azure::fuzzing::azure_signature, s3::fuzzing::s3_signature},
    grpc::fuzzing::{stream_frames, stream_message, unary_request},
    rest::fuzzing::{http_parameters, http_range},
};

/// Tries one input.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 14] = [
    ("azure_signature", azure_signature),
    ("certificate_names", certificate_names),
    ("credential_headers", credential_headers),
    ("file_name", file_name),
    ("http_parameters", http_parameters),
    ("http_range", http_range),
    ("redb_record", redb_record),
    ("redis_record", redis_record),
    ("resume_token", resume_token),
    ("s3_signature", s3_signature),
    ("stream_frames", stream_frames),
    ("stream_message", stream_message),
    ("token_claims", token_claims),
    ("unary_request", unary_request),
];

/// The rest of an input, made of numbers and of texts that end at the byte `ff`, which never occurs in UTF-8.
#[derive(Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

/// The parts of a request to sign.
#[derive(Debug)]
pub(crate) struct Wanted {
    kind: u8,
    object: NewObject,
    session: String,
    file_name: String,
    number: u32,
    size: u64,
    md5: Md5,
    parts: Vec<Part>,
}

/// An OPEN upload of `file` without parts.
pub(crate) fn upload_of(file: FileMetadata, storage_id: String) -> Upload {
    let limits = StoreLimits {
        max_parts: 10_000,
        max_part_size: 64 * MIB,
        max_object_size: 1 << 40,
        equal_parts: false,
    };
    let id = UploadId::generate(None);
    Upload {
        storage_id,
        object_key: keys::object_key("media", &id, &file.file_name),
        session: Some("session".into()),
        updated_at: Timestamp(1_700_000_000_001),
        expires_at: Timestamp(1_700_086_400_000),
        file,
        ..Upload::begun(
            id,
            StoreKind::S3,
            Plan::unknown(PART_SIZE, &limits),
            Timestamp(1_700_000_000_000),
        )
    }
}

// === impl Input ===

impl Input<'_> {
    /// The next byte; zero at the end.
    pub(crate) fn byte(&mut self) -> u8 {
        let [byte] = self.bytes();
        byte
    }

    /// The next eight bytes as a number.
    pub(crate) fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// The next text.
    pub(crate) fn text(&mut self) -> String {
        let end = self.0.iter().position(|&byte| byte == 0xff);
        let (text, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest.get(1..).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(self.0.len().min(N));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }
}

// === impl Wanted ===

impl Wanted {
    /// A request for a file that the gateway accepts; `None` if it would refuse the file.
    pub(crate) fn read(input: &mut Input<'_>) -> Option<Self> {
        let (kind, number, size) = (input.byte(), input.byte().into(), input.number());
        let md5 = Md5::of(&size.to_le_bytes());
        let file = FileMetadata {
            file_name: input.text(),
            file_mime: input.text(),
            ..FileMetadata::default()
        };
        policy::check(&file).ok()?;
        let (prefix, session) = (input.text(), input.text());
        // The configuration refuses such prefixes.
        if prefix.split('/').any(|name| matches!(name, "." | "..")) {
            return None;
        }
        let upload_id = UploadId::generate(None);
        Some(Self {
            kind,
            object: NewObject {
                size: None,
                key: keys::object_key(&prefix, &upload_id, &file.file_name),
                mime: policy::effective_mime(&file),
                md5: (kind & 8 == 0).then_some(md5),
                crc64nvme: None,
                integrity: Integrity::Md5,
                upload_id,
                record: None,
                placement: Box::default(),
            },
            session,
            file_name: file.file_name,
            number,
            size,
            md5,
            parts: vec![Part {
                number,
                offset: 0,
                size: 1,
                checksum: None,
                receipt: md5.to_hex(),
                digest: None,
            }],
        })
    }

    pub(crate) fn key(&self) -> &str {
        &self.object.key
    }

    pub(crate) fn request(&self) -> ToSign<'_> {
        let session = Session {
            key: &self.object.key,
            id: &self.session,
            scope: None,
        };
        let object = &self.object;
        match self.kind % 6 {
            0 => ToSign::PutObject {
                object,
                size: self.size,
            },
            1 => ToSign::Begin { object },
            2 => ToSign::PutPart {
                session,
                number: self.number,
                cut: 0,
                size: self.size,
                md5: self.md5,
            },
            3 => ToSign::ListParts { session },
            4 => ToSign::Commit {
                session,
                object,
                parts: &self.parts,
            },
            _ => ToSign::Read {
                verb: ReadVerb::Get,
                key: &self.object.key,
                file_name: &self.file_name,
                mime: &self.object.mime,
                lifetime: std::time::Duration::from_secs(self.size),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*, sample::Index, test_runner::TestRunner};

    use super::*;

    /// A mutation of a seed.
    #[derive(Debug, Clone)]
    enum Change {
        Flip(Index, u8),
        Insert(Index, Vec<u8>),
        Remove(Index, usize),
        /// Replaces its end by the end of another seed.
        Cross(Index, Index),
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let index = any::<Index>;
        prop_oneof![
            4 => (index(), 1u8..).prop_map(|(at, bits)| Change::Flip(at, bits)),
            2 => (index(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
            1 => (index(), 1..9usize).prop_map(|(at, count)| Change::Remove(at, count)),
            1 => (index(), index()).prop_map(|(at, seed)| Change::Cross(at, seed)),
        ]
    }

    fn change(mut bytes: Vec<u8>, change: Change, seeds: &[Vec<u8>]) -> Vec<u8> {
        let place = |at: Index, bytes: &[u8]| at.index(bytes.len() + 1);
        match change {
            Change::Flip(at, bits) => {
                let at = place(at, &bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Change::Insert(at, inserted) => {
                let at = place(at, &bytes);
                drop(bytes.splice(at..at, inserted));
            }
            Change::Remove(at, count) => {
                let at = place(at, &bytes);
                drop(bytes.drain(at..(at + count).min(bytes.len())));
            }
            Change::Cross(at, seed) => {
                let other = seed.get(seeds);
                bytes.truncate(place(at, &bytes));
                bytes.extend_from_slice(&other[place(at, other)..]);
            }
        }
        bytes
    }

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        let files = fs::read_dir(root.join(target)).unwrap();
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    /// Tries `PROPTEST_CASES` inputs, 256 by default. Add an input that fails to the seeds.
    fn run(name: &str, target: Target, inputs: &impl Strategy<Value = Bytes>) {
        let config = ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let outcome = TestRunner::new(config).run(inputs, |bytes| {
            target(&bytes);
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{name}: {failure}");
        }
    }

    #[test]
    fn no_bytes_break_a_promise() {
        for (name, target) in TARGETS {
            run(
                name,
                target,
                &vec(any::<u8>(), 0..300).prop_map(Bytes::from),
            );
        }
    }

    #[test]
    fn no_changed_seed_breaks_a_promise() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            let changed = (any::<Index>(), vec(any_change(), 1..6)).prop_map(|(seed, changes)| {
                let bytes = seed.get(&seeds).clone();
                let changes = changes.into_iter();
                Bytes::from(changes.fold(bytes, |bytes, one| change(bytes, one, &seeds)))
            });
            run(name, target, &changed);
        }
    }

    #[test]
    fn no_seed_breaks_a_promise() {
        for (name, target) in TARGETS {
            seeds(name).iter().for_each(|seed| target(seed));
        }
    }
}
