//! Lists the uploads of the caller.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
};
use upload_gateway_core::{
    error::{Error, Result},
    gateway::{SEARCHED_UPLOADS, Search},
};
use url::form_urlencoded::Serializer;

use super::{
    api::{Api, BASE, caller},
    failure::Failure,
    parameters::ListParameters,
    request::Parameters,
    responses::{ParameterErrors, ServerErrors},
    shapes::Record,
    values::{Number, Tags},
};

/// The header with the number of all matching uploads.
pub(super) const TOTAL_COUNT: &str = "x-total-count";

/// The length of a page if the request has no `limit`.
const DEFAULT_LIMIT: u64 = 100;

/// The maximum length of a page.
const MAX_LIMIT: u64 = 1_000;

/// The position and the length of a page.
#[derive(Debug, Clone, Copy)]
struct Page {
    limit: usize,
    offset: usize,
}

/// List the caller's uploads, newest first
///
/// Filters search the newest 10,000 uploads. Records have no parts.
#[utoipa::path(
    get,
    context_path = BASE,
    path = "",
    tag = "uploads",
    params(ListParameters),
    responses(
        (
            status = 200,
            description = "A page of records.",
            body = Vec<Record>,
            headers(
                ("X-Total-Count" = u64, description = "The number of all matching uploads."),
                ("Content-Range" = String, description = "`items a-b/n`; `items */n` for an empty page."),
                ("Link" = String, description = "The next page, with `rel=\"next\"`. Not set on the last page.")
            )
        ),
        ParameterErrors,
        ServerErrors
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<(HeaderMap, Json<Vec<Record>>), Failure> {
    let page = parameters.page()?;
    let search = parameters.search();
    let Page { limit, offset } = page;
    let found = api
        .gateway
        .records
        .search_uploads(&caller(), &search, limit, offset)
        .await?;
    let headers = page.headers(&search, found.uploads.len(), found.total);
    let records = found.uploads.into_iter().map(Record::from).collect();
    Ok((headers, Json(records)))
}

// === impl ListParameters ===

impl ListParameters {
    fn page(&self) -> Result<Page> {
        let limit = self.limit.map_or(DEFAULT_LIMIT, |Number(limit)| limit);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Error::invalid("limit", format!("must be 1 to {MAX_LIMIT}")));
        }
        let offset = self.offset.map_or(0, |Number(offset)| offset);
        let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Page {
            limit: size(limit),
            offset: size(offset),
        })
    }

    fn search(self) -> Search {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Search {
            storage_id: given(self.storage_id),
            tags: self.tags.map_or_else(Vec::new, |Tags(tags)| tags),
            file_name: given(self.file_search),
        }
    }
}

// === impl Page ===

impl Page {
    /// The headers of a page with `length` of `total` uploads.
    fn headers(self, search: &Search, length: usize, total: u64) -> HeaderMap {
        let range = match length {
            0 => format!("items */{total}"),
            _ => format!("items {}-{}/{total}", self.offset, self.offset + length - 1),
        };
        let end = self.offset.saturating_add(length);
        // A search finds no older uploads.
        let is_searched = end <= SEARCHED_UPLOADS;
        let has_more = length > 0 && is_searched && (end as u64) < total;
        let next = has_more.then(|| self.link(search, end));
        let mut headers = HeaderMap::new();
        headers.insert(TOTAL_COUNT, HeaderValue::from(total));
        let texts = [(header::CONTENT_RANGE, Some(range)), (header::LINK, next)];
        for (name, text) in texts {
            if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(name, value);
            }
        }
        headers
    }

    /// The link to the page at `offset`, relative to this server (RFC 8288).
    fn link(self, search: &Search, offset: usize) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", &self.limit.to_string());
        query.append_pair("offset", &offset.to_string());
        let tags = search.tags.join(",");
        let filters = [
            ("storage_id", search.storage_id.as_deref()),
            ("tags", Some(tags.as_str()).filter(|tags| !tags.is_empty())),
            ("file_search", search.file_name.as_deref()),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        format!("<{BASE}?{}>; rel=\"next\"", query.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_its_range_and_a_link_to_the_next_page() {
        let search = Search {
            tags: vec!["a b".into(), "c".into()],
            ..Search::default()
        };
        let page = Page {
            limit: 10,
            offset: 20,
        };
        let headers = page.headers(&search, 10, 31);
        assert_eq!(headers[TOTAL_COUNT], "31");
        assert_eq!(headers["content-range"], "items 20-29/31");
        let next = format!("<{BASE}?limit=10&offset=30&tags=a+b%2Cc>; rel=\"next\"");
        assert_eq!(headers["link"], next);
        assert!(!page.headers(&search, 10, 30).contains_key("link"));
        let empty = page.headers(&search, 0, 5);
        assert_eq!(empty["content-range"], "items */5");
        assert!(!empty.contains_key("link"));
    }
}
