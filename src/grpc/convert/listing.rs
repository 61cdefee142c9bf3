//! Searches: the filters of ListUploads.

use prost_types::Timestamp as WireTimestamp;
use upload_gateway_client::proto::v1;
use upload_gateway_core::{
    error::{All, Error, Result},
    gateway::{Scope, Search, Start},
    state::Created,
    upload::Timestamp,
};

use super::{cursor, page_size, phase_filter};

const NANOS: i32 = 1_000_000_000;

/// What is searched, the start of the page, and its largest length.
pub(in crate::grpc) fn search(request: v1::ListUploadsRequest) -> Result<(Search, Start, usize)> {
    let created = (
        time("created_after", request.created_after.as_ref()),
        time("created_before", request.created_before.as_ref()),
    );
    let filters = (
        phase_filter(request.phase),
        Scope::new(request.owner, request.all_owners, request.tenant),
        created.all(),
    );
    let ((phase, scope, (from, before)), limit, after) = (
        filters.all(),
        page_size(request.page_size),
        cursor(&request.page_token),
    )
        .all()?;
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let search = Search {
        scope,
        phase,
        storage_id: given(request.storage_id),
        tags: request.tags,
        file_name: given(request.name_contains),
        name_prefix: given(request.name_prefix),
        file_mime: given(request.file_mime),
        created: Created { from, before },
    };
    let start = Start {
        after,
        ..Start::default()
    };
    Ok((search, start, limit))
}

/// A time, in whole milliseconds; before the epoch: the epoch.
fn time(field: &'static str, time: Option<&WireTimestamp>) -> Result<Option<Timestamp>> {
    let Some(time) = time else {
        return Ok(None);
    };
    if !(0..NANOS).contains(&time.nanos) {
        return Err(Error::invalid(
            field,
            "its nanos are not from 0 to 999,999,999",
        ));
    }
    let seconds = u64::try_from(time.seconds).unwrap_or_default();
    let milliseconds = u64::try_from(time.nanos / 1_000_000).unwrap_or_default();
    let time = seconds.saturating_mul(1000).saturating_add(milliseconds);
    Ok(Some(Timestamp(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_milliseconds() {
        for (seconds, nanos, expected) in [
            (1, 2_999_999, Some(1_002)),
            (0, 0, Some(0)),
            (-5, 0, Some(0)),
            (i64::MAX, 0, Some(u64::MAX)),
            (1, -1, None),
            (1, NANOS, None),
        ] {
            let read = time("created_after", Some(&WireTimestamp { seconds, nanos }));
            let read = read.ok().flatten().map(|time| time.0);
            assert_eq!(read, expected, "{seconds} {nanos}");
        }
        assert_eq!(time("created_after", None).unwrap(), None);
    }
}
