//! What the calls take.

use serde::Deserialize;
use upload_gateway_core::{
    error::{Error, Result},
    gateway::{Next, PartToSign, Report},
    upload::{Claim, Claims, FileMetadata, policy},
};
use utoipa::{IntoParams, ToSchema};

use super::{
    shapes::Permissions,
    values::{Flag, Labels, Number, PartChoice, PartMd5, PartNumber, PartNumbers, md5},
};

/// A file, and where it is to go.
#[derive(Debug, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FileParameters {
    /// Its name, without a path. Needed.
    file_name: Option<String>,
    /// Its size in bytes. Needed.
    file_size: Option<Number>,
    /// The MD5 of the file, in base64 or hexadecimal: the same create finds the same upload by it. Up to 5,000,000 bytes
    /// it is checked, above it is only a key.
    file_id: Option<String>,
    /// Its media type. Left out: what its name's extension says, else `binary/octet-stream`.
    file_mime: Option<String>,
    /// Where the caller files it; only kept.
    file_path: Option<String>,
    /// Who may download it, besides its owner. Left out: `none`.
    permissions: Option<Permissions>,
    /// Whether any authenticated caller may download it. Left out: true.
    public: Option<Flag>,
    /// Labels to find it by.
    tags: Option<Labels>,
    /// The storage it goes to. Left out: the default one.
    storage_id: Option<String>,
}

/// What a client reports of an upload, and the part it wants signed next.
#[derive(Debug, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UpdateParameters {
    /// The part to be signed next, with `file_id`. Left out, both: the commit is signed.
    part: Option<PartChoice>,
    /// That part's MD5, in base64 or hexadecimal. In a query a space counts as `+`.
    file_id: Option<PartMd5>,
    /// The store's name for the session, once it is begun; at most 1,024 visible ASCII characters. Any such text where the
    /// store needs none.
    resumable_id: Option<String>,
    /// The parts that were sent or are being sent.
    part_list: Option<PartNumbers>,
    /// The MD5s of such parts. In the body only.
    #[param(ignore)]
    part_data: Option<Vec<PartParameters>>,
    /// Only report, sign nothing. Left out: false.
    part_update: Option<Flag>,
}

/// A part and its MD5.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct PartParameters {
    /// Its number.
    part: PartNumber,
    /// Its MD5, in base64 or hexadecimal.
    md5: Option<PartMd5>,
}

/// The part to be signed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EditParameters {
    /// The part's number, or `finish` for the commit. Needed.
    part: Option<PartChoice>,
    /// The part's MD5, in base64 or hexadecimal; a space counts as `+`. Needed with a number.
    file_id: Option<PartMd5>,
}

/// How long a link is good for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UrlParameters {
    /// Minutes, at least 1; a day (1,440) where nothing or more is said.
    pub(super) expiry: Option<Number>,
}

/// Which uploads, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// How many, 1 to 1,000. Left out: 100.
    pub(super) limit: Option<Number>,
    /// How many newer ones are left out before them, at most 10,000. Left out: 0.
    pub(super) offset: Option<Number>,
    /// Only those in this storage.
    pub(super) storage_id: Option<String>,
    /// Only those with all of these labels.
    pub(super) tags: Option<Labels>,
    /// Only those with this text in the file's name, whatever the case.
    pub(super) file_search: Option<String>,
}

// === impl FileParameters ===

impl FileParameters {
    /// The file, and the storage it goes to.
    pub(super) fn parse(self) -> Result<(FileMetadata, String)> {
        let file_name = self.file_name.unwrap_or_default();
        policy::check_placeos_name(&file_name)?;
        let file_id = self.file_id.filter(|text| !text.is_empty());
        let file = FileMetadata {
            file_name,
            file_size: self.file_size.map(|Number(size)| size),
            file_mime: self.file_mime.unwrap_or_default(),
            // What is no MD5 may be a key all the same: the gateway knows.
            file_id: file_id.map(|text| md5(&text).map_or(text, |md5| md5.to_string())),
            permissions: self.permissions.unwrap_or_default().into(),
            public: self.public.is_none_or(|Flag(public)| public),
            tags: self.tags.map_or_else(Vec::new, |Labels(tags)| tags),
            file_path: self.file_path.unwrap_or_default(),
            skip_file_digest: false,
        };
        Ok((file, self.storage_id.unwrap_or_default()))
    }
}

// === impl UpdateParameters ===

impl UpdateParameters {
    /// What is reported, and the step that is wanted.
    pub(super) fn parse(self) -> Result<(Report, Next)> {
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
        let listed = listed.map(|part| (part, None));
        let described = self.part_data.into_iter().flatten();
        let described = described.map(|part| (part.part, part.md5));
        let claims: Claims = listed
            .chain(described)
            .map(|(part, md5)| Claim {
                number: part.0,
                md5: md5.map(|md5| md5.0),
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

impl EditParameters {
    /// The step that is wanted.
    pub(super) fn parse(self) -> Result<Next> {
        step(self.part, self.file_id)
    }
}

/// The step of a part with its MD5, neither without the other: half of it must never become a commit.
fn step(part: Option<PartChoice>, file_id: Option<PartMd5>) -> Result<Next> {
    match (part, file_id) {
        (Some(PartChoice::Finish), _) => Ok(Next::Finish),
        (Some(PartChoice::Number(PartNumber(number))), Some(PartMd5(md5))) => {
            Ok(Next::Part(PartToSign { number, md5 }))
        }
        (Some(PartChoice::Number(_)), None) => {
            const WHY: &str = "Missing MD5 hash of file part";
            Err(Error::invalid("file_id", WHY))
        }
        (None, _) => Err(Error::invalid(
            "part",
            "must be given, a number or `finish`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use upload_gateway_core::upload::Md5;

    const MD5: &str = "5ymJIxM7GVLfTbMS6YI1Bw==";

    fn update(value: Value) -> Result<(Report, Next), String> {
        let parameters: UpdateParameters =
            serde_json::from_value(value).map_err(|error| error.to_string())?;
        parameters.parse().map_err(|error| error.to_string())
    }

    #[test]
    fn half_of_a_part_is_never_a_commit() {
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
    fn numbers_come_as_text_and_digests_as_base64_hexadecimal_or_with_spaces() {
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
    fn lists_and_data_are_claims_of_the_same_parts() {
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

    #[test]
    fn a_file_comes_with_what_placeos_takes_for_granted() {
        let parse = |value| {
            serde_json::from_value::<FileParameters>(value)
                .unwrap()
                .parse()
        };
        let (file, _) = parse(json!({"file_name": "a", "file_size": "7065473"})).unwrap();
        assert_eq!((file.file_size, file.public), (Some(7_065_473), true));
        let hex = "e7298923133b1952df4db312e9823507";
        let (file, _) = parse(json!({"file_name": "a", "file_id": hex, "tags": "a, b"})).unwrap();
        assert_eq!((file.file_id.as_deref(), file.tags.len()), (Some(MD5), 2));
    }
}
