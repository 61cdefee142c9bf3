//! Ids that are given in part: like those of commits, the beginning of an id names its upload.

use upload_gateway_client::{
    Client,
    proto::v1::{ListUploadsRequest, Upload},
};
use upload_gateway_core::upload::UploadId;

use super::{error::CliError, output};

/// How an id can be given, for the help of commands.
pub(super) const ID_HELP: &str = "The id of the upload, or its beginning: 4 digits or more";

/// The fewest digits that name an upload.
const MIN_DIGITS: usize = 4;

/// How many uploads are searched, the newest first. More would take seconds.
const MAX_UPLOADS: usize = 10_000;

/// How many pages they may be on: the gateway makes pages smaller than [`PAGE_SIZE`] if records are large.
const MAX_PAGES: usize = 100;

/// The largest page that the gateway returns.
const PAGE_SIZE: i32 = 1_000;

/// How many uploads an error names.
const MAX_SHOWN: usize = 5;

/// The uploads whose ids begin with the same text.
struct Matches {
    beginning: String,
    /// The ids and the names. One more than an error names.
    found: Vec<(String, String)>,
    searched: usize,
}

/// What an argument names.
enum Named<'a> {
    Id(&'a str),
    Beginning(Matches),
}

/// The id that `text` is or begins, of the newest 10,000 uploads of the caller. A whole id costs no call, and can be that of
/// another owner's upload.
///
/// # Errors
/// The upload is not found, or it is not the only one: then the error names the ids.
pub(super) async fn find_id(client: &Client, text: &str) -> Result<String, CliError> {
    let ids = find_ids(client, std::slice::from_ref(&text.to_owned())).await?;
    let id = ids.into_iter().next();
    id.ok_or_else(|| CliError::failed("an id is missing"))
}

/// [`find_id`] of each of several texts, without repetitions. All are searched for at once.
pub(super) async fn find_ids(client: &Client, texts: &[String]) -> Result<Vec<String>, CliError> {
    let named: Result<Vec<Named<'_>>, CliError> =
        texts.iter().map(|text| Named::of(text)).collect();
    let mut named = named?;
    let is_all = search(client, &mut named).await?;
    let mut ids = Vec::with_capacity(named.len());
    for named in named {
        let id = match named {
            Named::Id(id) => id.to_owned(),
            Named::Beginning(matches) => matches.only(is_all)?,
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// Adds the newest uploads to the matches. Returns whether these are all uploads.
async fn search(client: &Client, named: &mut [Named<'_>]) -> Result<bool, CliError> {
    let mut matches: Vec<_> = named.iter_mut().filter_map(Named::matches).collect();
    let mut page_token = String::new();
    for _ in 0..MAX_PAGES {
        if matches.iter().all(|matches| matches.is_enough()) {
            return Ok(false);
        }
        let request = ListUploadsRequest {
            page_size: PAGE_SIZE,
            page_token,
            ..ListUploadsRequest::default()
        };
        let page = client.list(request).await?;
        for matches in &mut matches {
            matches.add(&page.uploads);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `text` can be an id or the beginning of one.
pub(super) fn is_beginning(text: &str) -> bool {
    Named::of(text).is_ok()
}

// === impl Named ===

impl<'a> Named<'a> {
    fn of(text: &'a str) -> Result<Self, CliError> {
        match text.len() {
            UploadId::LENGTH.. => Ok(Self::Id(text)),
            _ => Matches::of(&text.to_ascii_lowercase()).map(Self::Beginning),
        }
    }

    fn matches(&mut self) -> Option<&mut Matches> {
        match self {
            Self::Id(_) => None,
            Self::Beginning(matches) => Some(matches),
        }
    }
}

// === impl Matches ===

impl Matches {
    /// For the uploads whose ids begin with `text`, which can lack the beginning of all ids.
    fn of(text: &str) -> Result<Self, CliError> {
        let beginning = text.strip_prefix(UploadId::PREFIX).unwrap_or(text);
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        if !beginning.bytes().all(is_digit) {
            return Err(CliError::failed(format!(
                "{text} is not the id of an upload; `upload-gateway ls` prints the ids"
            )));
        }
        if beginning.len() < MIN_DIGITS {
            return Err(CliError::failed(format!(
                "{text} is too short for an id: it needs at least {MIN_DIGITS} digits"
            )));
        }
        Ok(Self {
            beginning: beginning.to_owned(),
            found: Vec::new(),
            searched: 0,
        })
    }

    fn add(&mut self, uploads: &[Upload]) {
        self.searched += uploads.len();
        for upload in uploads {
            let digits = upload.upload_id.strip_prefix(UploadId::PREFIX);
            if digits.is_some_and(|digits| digits.starts_with(&self.beginning))
                && self.found.len() <= MAX_SHOWN
            {
                let name = output::name(upload).to_owned();
                self.found.push((upload.upload_id.clone(), name));
            }
        }
    }

    /// Whether further uploads would change nothing, or are too many.
    fn is_enough(&self) -> bool {
        self.found.len() > MAX_SHOWN || self.searched >= MAX_UPLOADS
    }

    /// The only one. `is_all` if no upload is left that was not searched.
    fn only(self, is_all: bool) -> Result<String, CliError> {
        let beginning = &self.beginning;
        let shown = self.found.iter().take(MAX_SHOWN);
        let shown: Vec<String> = shown.map(|(id, name)| format!("{id} ({name})")).collect();
        let shown = shown.join(", ");
        let more = if self.found.len() > MAX_SHOWN {
            ", …"
        } else {
            ""
        };
        let searched = self.searched;
        Err(CliError::failed(match self.found.as_slice() {
            [(id, _)] if is_all => return Ok(id.clone()),
            [] if is_all => {
                format!(
                    "no upload of yours begins with {beginning}; `upload-gateway ls` lists them"
                )
            }
            [] => format!(
                "none of the newest {searched} uploads begins with {beginning}, and older ones are not searched; give the \
                 whole id"
            ),
            [_] => format!(
                "only the newest {searched} uploads were searched for {beginning}, and an older one may begin with it, too; \
                 give the whole id: {shown}"
            ),
            _ => format!(
                "several uploads begin with {beginning}; give more of the id: {shown}{more}"
            ),
        }))
    }
}

#[cfg(test)]
mod tests {
    use upload_gateway_client::proto::v1::FileMetadata;

    use super::*;

    fn upload(digits: &str) -> Upload {
        Upload {
            upload_id: format!("uploads-{digits}"),
            file: Some(FileMetadata {
                file_name: format!("{digits}.bin"),
                ..FileMetadata::default()
            }),
            ..Upload::default()
        }
    }

    fn find(text: &str, digits: &[&str], is_all: bool) -> Result<String, String> {
        let mut matches = Matches::of(text).map_err(|error| error.to_string())?;
        let uploads: Vec<Upload> = digits.iter().map(|digits| upload(digits)).collect();
        matches.add(&uploads);
        let only = matches.only(is_all);
        only.map_err(|error| error.to_string())
    }

    #[test]
    fn the_beginning_of_one_id_names_its_upload() {
        let ids = ["abcd1", "abce1", "bcd11"];
        for text in ["abcd", "abcd1", "uploads-abcd"] {
            assert_eq!(find(text, &ids, true), Ok("uploads-abcd1".into()), "{text}");
        }
        let other = find("bcd1-", &ids, true).unwrap_err();
        assert!(other.contains("no upload of yours begins"), "{other}");
    }

    #[test]
    fn a_beginning_of_several_ids_is_refused_with_up_to_five_of_them() {
        let two = find("abcd", &["abcd1", "abcd2"], true).unwrap_err();
        assert!(
            two.ends_with("uploads-abcd1 (abcd1.bin), uploads-abcd2 (abcd2.bin)"),
            "{two}"
        );
        let ids: Vec<String> = (0..9).map(|index| format!("abcd{index}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let many = find("abcd", &ids, true).unwrap_err();
        assert_eq!(many.matches(".bin").count(), 5, "{many}");
        assert!(many.ends_with(", …"), "{many}");
    }

    #[test]
    fn an_upload_is_not_found_if_older_ones_may_begin_with_the_same_text() {
        let found = find("abcd", &["abcd1"], false).unwrap_err();
        assert!(
            found.contains("give the whole id: uploads-abcd1"),
            "{found}"
        );
        let none = find("abcd", &["abce1"], false).unwrap_err();
        assert!(none.contains("give the whole id"), "{none}");
    }

    #[test]
    fn fewer_than_four_digits_and_other_text_name_nothing() {
        for (text, reason) in [
            ("", "too short"),
            ("abc", "too short"),
            ("uploads-abc", "too short"),
            ("a.bin", "is not the id"),
        ] {
            let error = find(text, &[], true).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
