//! `ls`: lists uploads.

use std::collections::BTreeSet;

use clap::ValueEnum;
use prost_types::Timestamp;
use upload_gateway_client::proto::v1::{ListUploadsRequest, Phase, Upload};
use upload_gateway_core::{escape::escaped, upload::UploadId};

use super::{
    error::CliError,
    human, output,
    server::Server,
    table::{Column, Layout},
};

const COLUMNS: [Column; 7] = [
    Column::left("ID", 0),
    Column::left("PHASE", 0),
    Column::right("SIZE", 1),
    Column::left("CREATED", 2),
    Column::left("UPDATED", 3),
    Column::left("OWNER", 4),
    Column::left("NAME", 0),
];

/// The index of the column that only lists of several owners have.
const OWNER: usize = 5;

/// The heading of the filters in the help.
const HEADING: &str = "Filters";

/// The fewest digits of an id on a terminal.
const SHORT_ID: usize = 8;

/// The largest page that the gateway returns.
const MAX_PAGE: usize = 1_000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// List at most this number of uploads [default: all]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    filter: Filter,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    /// Print ids only, a line each
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

/// What an upload must have to be listed.
#[derive(Debug, clap::Args)]
struct Filter {
    /// Only uploads in this phase
    #[arg(help_heading = HEADING, long)]
    phase: Option<PhaseName>,
    /// Only uploads with this text in the file name
    #[arg(help_heading = HEADING, long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    /// Only uploads whose file name begins with this text, ordered by name
    #[arg(help_heading = HEADING, long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    name_prefix: String,
    /// Only uploads with this tag; may be given several times
    #[arg(help_heading = HEADING, long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only uploads in this storage
    #[arg(help_heading = HEADING, long, value_name = "ID", default_value = "", hide_default_value = true)]
    storage: String,
    /// Only files of this media type: image/png, or image/*
    #[arg(help_heading = HEADING, long,
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    mime: String,
    /// Only uploads that were created at this time or later: 2026-01-31, 2026-01-31T08:00:00Z, or 3d for three days ago
    #[arg(help_heading = HEADING, long, value_name = "TIME", value_parser = human::parse_time)]
    since: Option<Timestamp>,
    /// Only uploads that were created before this time
    #[arg(help_heading = HEADING, long, value_name = "TIME", value_parser = human::parse_time)]
    until: Option<Timestamp>,
    /// Uploads of this owner. Another owner needs the role support or admin
    #[arg(help_heading = HEADING, long,
        value_name = "SUBJECT",
        default_value = "",
        hide_default_value = true
    )]
    owner: String,
    /// Uploads of all owners in the tenant. Needs the role support or admin
    #[arg(help_heading = HEADING, long, conflicts_with = "owner")]
    all_owners: bool,
    /// The tenant, by default that of the caller. Another one needs the role operator
    #[arg(help_heading = HEADING, long,
        value_name = "TENANT",
        default_value = "",
        hide_default_value = true
    )]
    tenant: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PhaseName {
    Open,
    Committing,
    Complete,
    Aborted,
}

/// What prints the uploads of one page after another.
enum Printer {
    Ids,
    /// Whether the array has an element.
    Json(bool),
    Table {
        /// The layout that the first page has chosen.
        layout: Option<Layout<7>>,
        /// Whether the uploads are of several owners.
        has_owners: bool,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client().await?;
    let mut printer = Printer::new(&arguments);
    let limit = arguments
        .limit
        .and_then(|limit| usize::try_from(limit).ok());
    let mut left = limit.unwrap_or(usize::MAX);
    let mut request = arguments.filter.request();
    loop {
        // The gateway's own size of pages, unless fewer are left.
        request.page_size = limit.map_or(0, |_| i32::try_from(left.min(MAX_PAGE)).unwrap_or(0));
        let mut page = client.list(request.clone()).await?;
        page.uploads.truncate(left);
        left -= page.uploads.len();
        printer.print(&page.uploads)?;
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || left == 0 {
            return printer.finish();
        }
    }
}

/// The cells of an upload.
fn row(upload: &Upload, id: &str, now: &Timestamp) -> [String; 7] {
    let size = upload.file.as_ref().and_then(|file| file.file_size);
    let committed = upload.committed_size;
    let size = match (upload.phase(), size) {
        (Phase::Open | Phase::Committing, Some(size)) => {
            let percent = human::percent(committed, size);
            format!("{percent} of {}", human::size(size))
        }
        (_, Some(size)) => human::size(size),
        (_, None) => format!("{} of ?", human::size(committed)),
    };
    let age =
        |time: Option<Timestamp>| time.map_or_else(String::new, |time| human::age(&time, now));
    [
        id.to_owned(),
        output::phase(upload).to_owned(),
        size,
        age(upload.created_at),
        age(upload.updated_at),
        escaped(&upload.owner).into_owned(),
        escaped(output::name(upload)).into_owned(),
    ]
}

/// The shortest beginnings of these ids that differ from each other, without what all ids begin with.
fn short_ids(uploads: &[Upload]) -> Vec<&str> {
    let sorted: BTreeSet<&str> = uploads.iter().map(digits).collect();
    let shorten = |id: &'_ str| {
        let neighbours = [sorted.range(..id).next_back(), sorted.range(id..).nth(1)];
        let common = neighbours.iter().flatten().map(|other| common(id, other));
        common
            .max()
            .map_or(SHORT_ID, |common| SHORT_ID.max(common + 1))
    };
    let ids = uploads.iter().map(digits);
    ids.map(|id| id.get(..shorten(id)).unwrap_or(id)).collect()
}

/// An upload's id without what all ids begin with.
fn digits(upload: &Upload) -> &str {
    let id = upload.upload_id.as_str();
    id.strip_prefix(UploadId::PREFIX).unwrap_or(id)
}

/// How many bytes two texts begin with in common.
fn common(one: &str, other: &str) -> usize {
    let pairs = one.bytes().zip(other.bytes());
    pairs.take_while(|(one, other)| one == other).count()
}

// === impl Filter ===

impl Filter {
    /// The request for the first page.
    fn request(self) -> ListUploadsRequest {
        ListUploadsRequest {
            page_size: 0,
            page_token: String::new(),
            phase: self.phase.map_or(Phase::Unspecified, Phase::from).into(),
            owner: self.owner,
            all_owners: self.all_owners,
            tenant: self.tenant,
            storage_id: self.storage,
            tags: self.tags,
            name_prefix: self.name_prefix,
            name_contains: self.name,
            file_mime: self.mime,
            created_after: self.since,
            created_before: self.until,
        }
    }
}

// === impl Printer ===

impl Printer {
    fn new(arguments: &Arguments) -> Self {
        match arguments {
            Arguments { quiet: true, .. } => Self::Ids,
            Arguments { json: true, .. } => Self::Json(false),
            Arguments { filter, .. } => Self::Table {
                layout: None,
                has_owners: filter.all_owners || !filter.tenant.is_empty(),
            },
        }
    }

    fn print(&mut self, uploads: &[Upload]) -> Result<(), CliError> {
        match self {
            Self::Ids => uploads
                .iter()
                .try_for_each(|upload| output::data(&upload.upload_id)),
            Self::Json(has_element) => uploads.iter().try_for_each(|upload| {
                let before = if *has_element { "," } else { "[" };
                *has_element = true;
                output::data(format_args!("{before}{}", output::record(upload)))
            }),
            Self::Table { layout, has_owners } => {
                let width = output::width();
                // What is not for a terminal has whole ids: other programs read it.
                let ids: Vec<&str> = match width {
                    Some(_) => short_ids(uploads),
                    None => uploads.iter().map(|upload| &*upload.upload_id).collect(),
                };
                let now = human::now();
                let rows = uploads.iter().zip(ids);
                let rows: Vec<_> = rows.map(|(upload, id)| row(upload, id, &now)).collect();
                if layout.is_none() {
                    let all = Layout::new(&COLUMNS, &rows, width);
                    let chosen = if *has_owners { all } else { all.without(OWNER) };
                    let layout = layout.insert(chosen);
                    output::data(layout.header())?;
                }
                let lines = layout
                    .iter()
                    .flat_map(|layout| rows.iter().map(|row| layout.line(row)));
                lines.into_iter().try_for_each(output::data)
            }
        }
    }

    fn finish(self) -> Result<(), CliError> {
        match self {
            Self::Json(true) => output::data("]"),
            Self::Json(false) => output::data("[]"),
            Self::Ids | Self::Table { .. } => Ok(()),
        }
    }
}

// === impl PhaseName ===

impl From<PhaseName> for Phase {
    fn from(name: PhaseName) -> Self {
        match name {
            PhaseName::Open => Self::Open,
            PhaseName::Committing => Self::Committing,
            PhaseName::Complete => Self::Complete,
            PhaseName::Aborted => Self::Aborted,
        }
    }
}

#[cfg(test)]
mod tests {
    use upload_gateway_client::proto::v1::FileMetadata;

    use super::*;

    fn upload(digits: &str, phase: Phase, size: Option<i64>, committed: i64) -> Upload {
        Upload {
            upload_id: format!("uploads-{digits}"),
            phase: phase.into(),
            committed_size: committed,
            file: Some(FileMetadata {
                file_size: size,
                file_name: "a\u{202e}b".into(),
                ..FileMetadata::default()
            }),
            ..Upload::default()
        }
    }

    #[test]
    fn short_ids_differ_from_each_other() {
        let ids = ["0123456789abcdef", "0123456788abcdef", "ffff000000000000"];
        let uploads = ids.map(|id| upload(id, Phase::Open, None, 0));
        assert_eq!(
            short_ids(&uploads),
            ["0123456789", "0123456788", "ffff0000"]
        );
        assert_eq!(short_ids(&uploads[..1]), ["01234567"]);
    }

    #[test]
    fn a_row_has_the_size_and_how_much_of_it_is_committed() {
        let now = human::now();
        for (phase, size, committed, shown) in [
            (Phase::Complete, Some(12 << 20), 12 << 20, "12.0 MiB"),
            (Phase::Open, Some(12 << 20), 5 << 20, "41% of 12.0 MiB"),
            (Phase::Open, None, 5 << 20, "5.0 MiB of ?"),
        ] {
            let upload = upload("0123456789abcdef", phase, size, committed);
            let row = row(&upload, "01234567", &now);
            assert_eq!(row[2], shown);
            assert_eq!(row[6], "a\\u{202e}b");
        }
    }
}
