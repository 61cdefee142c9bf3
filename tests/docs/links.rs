//! The links of the pages.

use std::collections::BTreeSet;

use super::{
    page::{Page, pages},
    run::repository,
};

#[test]
fn links_point_to_existing_files_and_headings() {
    let pages = pages();
    for page in &pages {
        for link in page.links() {
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = resolve(&page.path, path);
            assert!(
                repository().join(&target).exists(),
                "{} links to {link}: there is no {target}",
                page.path
            );
            let anchors = || Page::read(&target).anchors();
            assert!(
                anchor.is_empty() || anchors().iter().any(|found| found == anchor),
                "{} links to {link}: there is no such heading",
                page.path
            );
        }
        let anchors = page.anchors();
        let different: BTreeSet<&String> = anchors.iter().collect();
        assert_eq!(different.len(), anchors.len(), "{}: {anchors:?}", page.path);
    }
}

#[test]
fn the_readme_links_to_every_page() {
    let readme = Page::read("README.md").links();
    for page in pages() {
        assert!(
            page.path == "README.md"
                || !page.path.starts_with("docs/")
                || readme.contains(&page.path),
            "README.md does not link to {}",
            page.path
        );
    }
}

#[test]
fn the_readme_stays_short() {
    let lines = Page::read("README.md").text.lines().count();
    assert!(lines <= 150, "{lines} lines");
}

/// The path from the root that `link` means on the page at `from`; the page itself for an empty one.
fn resolve(from: &str, link: &str) -> String {
    if link.is_empty() {
        return from.to_owned();
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            ".." => assert!(parts.pop().is_some(), "{link} leaves the repository"),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
