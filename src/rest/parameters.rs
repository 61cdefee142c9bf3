//! The parameters of the calls.

use std::time::Duration;

use serde::Deserialize;
use upload_gateway_core::{
    error::{All, Error, Result},
    gateway::{DOWNLOAD_LIFETIME, Next, PartToSign, Report},
    upload::{Cached, Claim, Claims, DigestChoice, FileMetadata, Md5, policy},
};
use utoipa::{IntoParams, ToSchema};

use super::{
    placement::Placement,
    request::Parse,
    shapes::{Permissions, PhaseName},
    values::{
        Flag, Number, OptionalMd5, PartChoice, PartMd5, PartNumber, PartNumbers, Tags, Text, md5,
    },
};

/// A file and its storage.
#[derive(Debug, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FileParameters {
    /// The name, without a path. Required.
    file_name: Option<String>,
    /// The size in bytes. Required.
    file_size: Option<Number>,
    /// The MD5 of the file, in base64 or hexadecimal. An identical create then finds the same upload. It is checked if the
    /// file has at most 5,000,000 bytes; for larger files it is only a key.
    file_id: Option<String>,
    /// The media type. Default: that of the name's extension, or `binary/octet-stream`.
    file_mime: Option<String>,
    /// A path for the caller's own use. The gateway only stores it.
    file_path: Option<String>,
    /// The role that a caller needs to download the file. Default: `none`.
    permissions: Option<Permissions>,
    /// Whether every authenticated caller may download the file. Default: true.
    public: Option<Flag>,
    /// Tags, for searches.
    tags: Option<Tags>,
    /// After how many seconds from completion the file is deleted. Default: as the storage is configured, or never.
    expire_after: Option<Number>,
    /// How the object is stored. Default: as the storage is configured. Only in the body.
    #[param(ignore)]
    placement: Option<Placement>,
    /// The entity tag of the file in the caller's own cache. The gateway only stores it.
    cache_etag: Option<String>,
    /// When the file in the caller's own cache was modified. The gateway only stores it, as text.
    cache_modified: Option<Text>,
    /// The id of the storage. Default: the default storage.
    storage_id: Option<String>,
}

/// What a client reports, and the part that is to be signed next.
#[derive(Debug, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UpdateParameters {
    /// The number of the part that is to be signed, or `finish`. Without `part` and `file_id`, the commit is signed.
    part: Option<PartChoice>,
    /// The MD5 of that part, in base64 or hexadecimal. A space counts as `+`.
    file_id: Option<PartMd5>,
    /// The id of the store's session (S3: UploadId): at most 1,024 visible ASCII characters. The first one is kept; another
    /// one is refused with 409. Azure has no sessions and accepts any text up to 64 KiB.
    resumable_id: Option<String>,
    /// The numbers of the parts that were sent or are in flight.
    part_list: Option<PartNumbers>,
    /// The MD5s of parts that were sent or are in flight. Only in the body.
    #[param(ignore)]
    part_data: Option<Vec<PartParameters>>,
    /// Only report, sign nothing. Default: false.
    part_update: Option<Flag>,
}

/// A part and its MD5.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct PartParameters {
    /// The number.
    part: PartNumber,
    /// The MD5, in base64 or hexadecimal. Empty: unknown.
    #[serde(default)]
    md5: OptionalMd5,
}

/// The part that is to be signed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EditParameters {
    /// The number of the part, or `finish` for the commit. Required.
    part: Option<PartChoice>,
    /// The MD5 of the part, in base64 or hexadecimal. A space counts as `+`. Required with a number.
    file_id: Option<PartMd5>,
}

/// How long a signed URL is valid.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UrlParameters {
    /// The time in minutes, at least 1. Default and maximum: 1,440 (a day).
    expiry: Option<Number>,
}

/// Filters, and the page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// The largest number of uploads on the page, at least 1. More than 1,000 means 1,000. Default: 100.
    pub(super) limit: Option<Number>,
    /// The number of newer uploads that are skipped, at most 10,000. Default: 0.
    pub(super) offset: Option<Number>,
    /// Where the page starts, from the `Link` of the page before. `offset` then counts from there. Default: at the newest
    /// upload.
    pub(super) page_token: Option<String>,
    /// Only uploads in this storage.
    pub(super) storage_id: Option<String>,
    /// Only uploads with all of these tags.
    pub(super) tags: Option<Tags>,
    /// Only uploads with this text in the file name, in upper or lower case and in any normal form of Unicode.
    pub(super) file_search: Option<String>,
    /// Only uploads whose file name begins with this text, in upper or lower case and in any normal form of Unicode. Without
    /// `tags`, the uploads are then ordered by name, and otherwise by creation, newest first.
    pub(super) name_prefix: Option<String>,
    /// Only files of this media type, `image/png`, or of all with its type, `image/*`.
    pub(super) file_mime: Option<String>,
    /// Only uploads in this phase.
    pub(super) phase: Option<PhaseName>,
    /// Only uploads that were created at this time or later, in seconds since 1970.
    pub(super) created_after: Option<Number>,
    /// Only uploads that were created before this time, in seconds since 1970.
    pub(super) created_before: Option<Number>,
    /// Only uploads of this owner. Another owner than the caller needs the role support or admin. Default: the caller.
    pub(super) owner: Option<String>,
    /// `true`: uploads of all owners in the tenant. Needs the role support or admin.
    pub(super) all_owners: Option<Flag>,
    /// The tenant. Another tenant than the caller's needs the role operator. Without `owner`: the uploads of all its owners.
    pub(super) tenant: Option<String>,
}

// === impl FileParameters ===

impl Parse for FileParameters {
    /// The file and its storage.
    type Value = (FileMetadata, String);

    fn parse(self) -> Result<Self::Value> {
        let file_name = self.file_name.unwrap_or_default();
        let file_id = self.file_id.filter(|text| !text.is_empty());
        let file = FileMetadata {
            file_name,
            file_size: self.file_size.map(|Number(size)| size),
            file_mime: self.file_mime.unwrap_or_default(),
            // A text that is not an MD5 can still be a key. The use case decides.
            file_id: file_id.map(|text| md5(&text).map_or(text, |md5| md5.to_string())),
            permissions: self.permissions.unwrap_or_default().into(),
            public: self.public.is_none_or(|Flag(public)| public),
            tags: self.tags.map_or_else(Vec::new, |Tags(tags)| tags),
            file_path: self.file_path.unwrap_or_default(),
            file_digest: DigestChoice::Md5,
            expire_after: self.expire_after.map(|Number(seconds)| seconds),
            placement: Box::new(self.placement.map(Into::into).unwrap_or_default()),
            cached: cached(self.cache_etag, self.cache_modified),
        };
        let named = policy::check_placeos_name(&file.file_name);
        (named, policy::check_signed(&file)).all()?;
        Ok((file, self.storage_id.unwrap_or_default()))
    }
}

// === impl UpdateParameters ===

impl Parse for UpdateParameters {
    /// What is reported, and the step that is requested.
    type Value = (Report, Next);

    fn parse(self) -> Result<Self::Value> {
        let next = if self.part_update == Some(Flag(true)) {
            Next::Nothing
        } else if self.part.is_none() && self.file_id.is_none() {
            Next::Finish
        } else {
            step(self.part, self.file_id)?
        };
        let listed = self
            .part_list
            .into_iter()
            .flat_map(|PartNumbers(list)| list);
        let listed = listed.map(|part| (part, None::<Md5>));
        let described = self.part_data.into_iter().flatten();
        let described = described.map(|part| (part.part, part.md5.0));
        let claims: Claims = listed
            .chain(described)
            .map(|(part, md5)| Claim {
                number: part.0,
                md5,
                signed_for: None,
            })
            .collect();
        let report = Report {
            resumable_id: self.resumable_id.filter(|id| !id.is_empty()),
            claims: claims.iter().collect(),
        };
        Ok((report, next))
    }
}

// === impl EditParameters ===

impl Parse for EditParameters {
    /// The step that is requested.
    type Value = Next;

    fn parse(self) -> Result<Next> {
        step(self.part, self.file_id)
    }
}

// === impl UrlParameters ===

impl Parse for UrlParameters {
    /// How long the URL is valid.
    type Value = Duration;

    fn parse(self) -> Result<Duration> {
        let lifetime = match self.expiry {
            Some(Number(0)) => return Err(Error::invalid("expiry", "must be at least 1 minute")),
            Some(Number(minutes)) => Duration::from_secs(minutes.saturating_mul(60)),
            None => DOWNLOAD_LIFETIME,
        };
        Ok(lifetime.min(DOWNLOAD_LIFETIME))
    }
}

/// What the caller's cache says about the file, if it says anything.
fn cached(etag: Option<String>, modified: Option<Text>) -> Option<Box<Cached>> {
    let modified = modified.map(|Text(text)| text);
    let cached = Cached { etag, modified };
    (cached != Cached::default()).then(|| Box::new(cached))
}

/// The step that the parameters select. A part needs its number and its MD5: with only one of them nothing is signed, and
/// never the commit.
fn step(part: Option<PartChoice>, file_id: Option<PartMd5>) -> Result<Next> {
    match (part, file_id) {
        (Some(PartChoice::Finish), _) => Ok(Next::Finish),
        (Some(PartChoice::Number(PartNumber(number))), Some(PartMd5(md5))) => {
            Ok(Next::Part(PartToSign { number, md5 }))
        }
        (Some(PartChoice::Number(_)), None) => {
            // The message of PlaceOS.
            const MESSAGE: &str = "Missing MD5 hash of file part";
            Err(Error::invalid("file_id", MESSAGE))
        }
        (None, _) => Err(Error::invalid(
            "part",
            "must be the number of a part, or `finish`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::request::values, *};

    const MD5: &str = "5ymJIxM7GVLfTbMS6YI1Bw==";

    fn update(value: Value) -> Result<(Report, Next), String> {
        let all = value.as_object().unwrap().clone();
        values::<UpdateParameters>(all).map_err(|error| error.to_string())
    }

    #[test]
    fn a_number_or_an_md5_alone_never_signs_the_commit() {
        assert!(
            update(json!({"part": 1}))
                .unwrap_err()
                .starts_with("file_id")
        );
        assert!(
            update(json!({"file_id": MD5}))
                .unwrap_err()
                .starts_with("part")
        );
        assert_eq!(update(json!({})).unwrap().1, Next::Finish);
    }

    #[test]
    fn numbers_may_be_text_and_digests_base64_hexadecimal_or_with_spaces() {
        let md5: Md5 = "+/+/+/+/+/+/+/+/+/+/+w==".parse().unwrap();
        for text in [
            md5.to_string(),
            md5.to_hex(),
            md5.to_string().replace('+', " "),
        ] {
            for part in [json!(7), json!("7")] {
                let next = update(json!({"part": part, "file_id": text})).unwrap().1;
                assert_eq!(next, Next::Part(PartToSign { number: 7, md5 }), "{text}");
            }
        }
        for part in [
            json!(0),
            json!(-1),
            json!("abc"),
            json!(""),
            json!(1.5),
            json!([1]),
        ] {
            assert!(
                update(json!({"part": part, "file_id": MD5})).is_err(),
                "{part}"
            );
        }
    }

    #[test]
    fn part_list_and_part_data_are_claims_of_the_same_parts() {
        let (report, _) = update(json!({
            "part_list": [1, "2", 2],
            "part_data": [{"md5": MD5, "part": 1}, {"part": "3", "etag": "x"}],
            "part_update": "true",
            "resumable_id": "",
        }))
        .unwrap();
        let claims: Vec<_> = report
            .claims
            .iter()
            .map(|claim| (claim.number, claim.md5))
            .collect();
        assert_eq!(claims, [(1, MD5.parse().ok()), (2, None), (3, None)]);
        assert_eq!(report.resumable_id, None);
    }

    /// As clients report parts that they sent before a failure.
    #[test]
    fn an_empty_md5_claims_no_md5() {
        for md5 in [json!(""), json!(null)] {
            let (report, _) = update(json!({"part_data": [{"part": 2, "md5": md5}]})).unwrap();
            let claims: Vec<_> = report.claims.iter().map(|claim| claim.md5).collect();
            assert_eq!(claims, [None]);
        }
        for md5 in [json!(" "), json!("x"), json!(5), json!([])] {
            assert!(
                update(json!({"part_data": [{"part": 2, "md5": md5}]})).is_err(),
                "{md5}"
            );
        }
    }

    #[test]
    fn a_file_has_the_defaults_of_placeos() {
        let parse = |value| {
            serde_json::from_value::<FileParameters>(value)
                .unwrap()
                .parse()
        };
        let (file, _) = parse(json!({"file_name": "a", "file_size": "7065473"})).unwrap();
        assert_eq!((file.file_size, file.public), (Some(7_065_473), true));
        let hex = "e7298923133b1952df4db312e9823507";
        let (file, _) =
            parse(json!({"file_name": "a", "file_size": 1, "file_id": hex, "tags": "a, b"}))
                .unwrap();
        assert_eq!((file.file_id.as_deref(), file.tags.len()), (Some(MD5), 2));
    }
}
