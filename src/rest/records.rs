//! Lists uploads.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use upload_gateway_core::{
    error::{All, Error, Result},
    gateway::{Found, MAX_PAGE_LENGTH, Scope, Search, Start},
    state::{Created, Cursor},
    upload::{Phase, Timestamp, Upload},
};
use url::form_urlencoded::Serializer;

use super::{
    api::{Api, BASE, CalledBy},
    failure::Failure,
    parameters::ListParameters,
    request::{Parameters, Parse},
    responses::{ParameterErrors, ServerErrors},
    shapes::Record,
    values::{Flag, Number, Tags},
};

/// The header with the number of all matching uploads.
pub(super) const TOTAL_COUNT: &str = "x-total-count";

/// The length of a page if the request has no `limit`.
const DEFAULT_LIMIT: u64 = 100;

/// List uploads, newest first, by default the caller's own
///
/// A page has at most 1 MiB. Without filters, it has `limit` uploads, as far as they fit. With filters, it has those that
/// match among the next 10,000 uploads: it can have fewer, or none, and still have a next page. Follow `Link` to the end.
/// Records have no parts.
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
                ("X-Total-Count" = u64, description = "The number of all matching uploads. Not set with several filters, or with `file_search` or `file_mime`, if more than 10,000 uploads had to be looked at."),
                ("Content-Range" = String, description = "`items a-b/n`, with `*` for a number that is not known; `items */n` for an empty page."),
                ("Link" = String, description = "The next page, with `rel=\"next\"`. Not set on the last page.")
            )
        ),
        ParameterErrors,
        ServerErrors
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    CalledBy(caller): CalledBy,
    Parameters((limit, start, search)): Parameters<ListParameters>,
) -> Result<Response, Failure> {
    let records = &api.gateway.records;
    let page = records.list_uploads(&caller, &search, start, limit);
    let (mut found, total) = tokio::try_join!(page, records.count_uploads(&caller, &search))?;
    found.total = total.or(found.total);
    let body = body(&mut found)?;
    Ok((headers(&search, limit, &found), body).into_response())
}

/// The records as a JSON array, as far as they fit into the largest page.
fn body(found: &mut Found) -> Result<String> {
    let json = |upload: &Upload| {
        serde_json::to_string(&Record::from(upload.clone()))
            .map_err(|cause| Error::internal("write a record as JSON", cause))
    };
    let mut records = found.uploads.iter().map(json).collect::<Result<Vec<_>>>()?;
    found.fit(records.iter().map(|record| record.len() + 1));
    records.truncate(found.uploads.len());
    Ok(format!("[{}]", records.join(",")))
}

/// The headers of a page.
fn headers(search: &Search, limit: usize, found: &Found) -> HeaderMap {
    let total = found.total.map(|total| total.to_string());
    let range = range(found.first, found.uploads.len() as u64, found.total);
    let next = found.next.as_ref().map(|next| link(search, limit, next));
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let texts = [
        (HeaderName::from_static(TOTAL_COUNT), total),
        (header::CONTENT_RANGE, range),
        (header::LINK, next),
    ];
    for (name, text) in texts {
        if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(name, value);
        }
    }
    headers
}

/// The range of a page with `length` uploads, after `first` others. Not set for an empty page of an unknown total.
fn range(first: u64, length: u64, total: Option<u64>) -> Option<String> {
    let last = first.saturating_add(length.saturating_sub(1));
    match (length, total) {
        (0, None) => None,
        (0, Some(total)) => Some(format!("items */{total}")),
        (_, None) => Some(format!("items {first}-{last}/*")),
        (_, Some(total)) => Some(format!("items {first}-{last}/{total}")),
    }
}

/// The link to the page that starts at `start`, relative to this server (RFC 8288).
fn link(search: &Search, limit: usize, start: &Start) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string());
    if start.skip > 0 {
        query.append_pair("offset", &start.skip.to_string());
    }
    let token = page_token(start);
    let tags = search.tags.join(",");
    let (owner, tenant) = match &search.scope {
        Scope::Own => ("", ""),
        Scope::Owner { tenant, subject } => (subject.as_str(), tenant.as_str()),
        Scope::Tenant { tenant } => ("", tenant.as_str()),
    };
    let phase = search.phase.map(|phase| phase.to_string());
    let seconds = |time: Timestamp| (time.0 / 1000).to_string();
    let created = [search.created.from, search.created.before].map(|time| time.map(seconds));
    let is_tenant = matches!(search.scope, Scope::Tenant { .. });
    let given = |text| Some(text).filter(|text: &&str| !text.is_empty());
    let parameters = [
        ("page_token", given(token.as_str())),
        ("storage_id", search.storage_id.as_deref()),
        ("tags", given(tags.as_str())),
        ("file_search", search.file_name.as_deref()),
        ("name_prefix", search.name_prefix.as_deref()),
        ("file_mime", search.file_mime.as_deref()),
        ("phase", phase.as_deref()),
        ("created_after", created[0].as_deref()),
        ("created_before", created[1].as_deref()),
        ("owner", given(owner)),
        ("all_owners", is_tenant.then_some("true")),
        ("tenant", given(tenant)),
    ];
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("<{BASE}?{}>; rel=\"next\"", query.finish())
}

/// The token of a position, and how many matches come before it. Empty for the position before the newest upload.
fn page_token(start: &Start) -> String {
    let token = |after: &Cursor| {
        let name = after.name.as_ref().map(|name| format!(" {name}"));
        let (name, passed) = (name.unwrap_or_default(), start.passed);
        let text = format!("{} {} {passed}{name}", after.created_at.0, after.id);
        URL_SAFE_NO_PAD.encode(text)
    };
    start.after.as_ref().map(token).unwrap_or_default()
}

fn parse_page_token(token: &str) -> Option<Start> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let mut fields = text.splitn(4, ' ');
    let mut next = || fields.next();
    let (created_at, id, passed) = (next()?, next()?, next()?);
    Some(Start {
        after: Some(Cursor {
            created_at: Timestamp(created_at.parse().ok()?),
            id: id.parse().ok()?,
            name: next().map(str::to_owned),
        }),
        skip: 0,
        passed: passed.parse().ok()?,
    })
}

// === impl ListParameters ===

impl Parse for ListParameters {
    type Value = (usize, Start, Search);

    fn parse(self) -> Result<Self::Value> {
        let (limit, start, scope) = (self.limit(), self.start(), self.scope()).all()?;
        Ok((limit, start, self.search(scope)))
    }
}

impl ListParameters {
    fn limit(&self) -> Result<usize> {
        match self.limit.map_or(DEFAULT_LIMIT, |Number(limit)| limit) {
            0 => Err(Error::invalid("limit", "must be at least 1")),
            limit => Ok(size(limit).min(MAX_PAGE_LENGTH)),
        }
    }

    fn start(&self) -> Result<Start> {
        let start = match self.page_token.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => parse_page_token(token)
                .ok_or_else(|| Error::invalid("page_token", "not a token of this call"))?,
            None => Start::default(),
        };
        Ok(Start {
            skip: self.offset.map_or(0, |Number(offset)| size(offset)),
            ..start
        })
    }

    fn scope(&self) -> Result<Scope> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let all_owners = self.all_owners == Some(Flag(true));
        Scope::new(text(&self.owner), all_owners, text(&self.tenant))
    }

    fn search(self, scope: Scope) -> Search {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Search {
            scope,
            phase: self.phase.map(Phase::from),
            storage_id: given(self.storage_id),
            tags: self.tags.map_or_else(Vec::new, |Tags(tags)| tags),
            file_name: given(self.file_search),
            name_prefix: given(self.name_prefix),
            file_mime: given(self.file_mime),
            created: Created {
                from: self.created_after.map(time),
                before: self.created_before.map(time),
            },
        }
    }
}

/// A time in seconds since the epoch.
fn time(Number(seconds): Number) -> Timestamp {
    Timestamp(seconds.saturating_mul(1000))
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use upload_gateway_core::upload::UploadId;

    use super::*;

    fn start(skip: usize, passed: u64) -> Start {
        Start {
            after: Some(Cursor {
                created_at: Timestamp(17),
                id: UploadId::generate(None),
                name: None,
            }),
            skip,
            passed,
        }
    }

    #[test]
    fn a_page_has_its_range_and_a_link_to_the_next_page() {
        for (first, length, total, expected) in [
            (20, 10, Some(31), Some("items 20-29/31")),
            (20, 10, None, Some("items 20-29/*")),
            (7, 0, Some(5), Some("items */5")),
            (7, 0, None, None),
        ] {
            assert_eq!(range(first, length, total).as_deref(), expected);
        }
        let search = Search {
            tags: vec!["a b".into(), "c".into()],
            ..Search::default()
        };
        let next = start(0, 30);
        let mut found = Found {
            total: Some(31),
            next: Some(next.clone()),
            ..Found::default()
        };
        let token = page_token(&next);
        let expected = format!("<{BASE}?limit=10&page_token={token}&tags=a+b%2Cc>; rel=\"next\"");
        let page = headers(&search, 10, &found);
        assert_eq!(page["link"], expected);
        assert_eq!(page[TOTAL_COUNT], "31");
        (found.total, found.next) = (None, None);
        let last = headers(&search, 10, &found);
        assert!(!last.contains_key("link") && !last.contains_key(TOTAL_COUNT));
    }

    #[test]
    fn a_page_token_decodes_to_its_position() {
        let next = start(7, 30);
        let expected = Start {
            skip: 0,
            ..next.clone()
        };
        assert_eq!(parse_page_token(&page_token(&next)), Some(expected));
        assert!(link(&Search::default(), 1, &next).contains("?limit=1&offset=7&page_token="));
        for text in ["", "x", "17", "17 x 3", "17 uploads-1 3"] {
            assert_eq!(
                parse_page_token(&URL_SAFE_NO_PAD.encode(text)),
                None,
                "{text}"
            );
        }
        assert_eq!(parse_page_token("%"), None);
    }
}
