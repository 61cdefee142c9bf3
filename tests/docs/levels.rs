//! The service levels: rules, alerts and dashboard agree with the pages, and the pages with the code.

use std::{collections::BTreeSet, fs};

use upload_gateway::status::is_fault;
use upload_gateway_client::proto::v1::ErrorReason;

use super::{
    page::{Page, code},
    run::repository,
};

const RULES: &str = "deploy/prometheus/rules.yaml";
const DASHBOARD: &str = "deploy/grafana/upload-gateway.json";

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// The values of a key of a YAML file.
fn values<'a>(yaml: &'a str, key: &str) -> BTreeSet<&'a str> {
    let lines = yaml
        .lines()
        .map(|line| line.trim().trim_start_matches("- "));
    let lines = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    lines.collect()
}

/// The words of a text that can be names of metrics or rules.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
    text.split(move |character| !is_part(character))
}

#[test]
fn each_alert_has_a_section_and_tests() {
    let rules = read(RULES);
    let page = Page::read("docs/operating.md");
    let anchors = page.anchors();
    let runbooks = values(&rules, "runbook");
    assert!(runbooks.len() >= 10, "{runbooks:?}");
    for runbook in runbooks {
        let anchor = runbook.strip_prefix("docs/operating.md#").unwrap();
        assert!(anchors.iter().any(|known| known == anchor), "{runbook}");
    }
    let tests =
        read("deploy/prometheus/causes_test.yaml") + &read("deploy/prometheus/levels_test.yaml");
    for alert in values(&rules, "alert") {
        assert!(
            page.text.contains(&format!("*{alert}")),
            "no section for {alert}"
        );
        let is_tested = tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n"));
        assert!(is_tested, "no test in which {alert} fires");
    }
}

#[test]
fn rules_and_dashboard_use_metrics_of_the_page() {
    let rows = Page::read("docs/metrics.md").table(&["metric", "type"]);
    let metrics: BTreeSet<&str> = rows.iter().filter_map(|row| code(&row[0])).collect();
    let rules = read(RULES);
    let records = values(&rules, "record");
    let mut used = BTreeSet::new();
    for path in [RULES, DASHBOARD] {
        let text = read(path);
        for word in words(&text) {
            let prefixes = [
                "upload_gateway_",
                "upload_gateway:",
                "rpc_server_",
                "http_server_",
            ];
            if !prefixes.iter().any(|prefix| word.starts_with(prefix)) {
                continue;
            }
            let suffixes = ["_bucket", "_sum", "_count", "_info"];
            let name = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
            let name = name.unwrap_or(word).to_owned();
            let is_known = metrics.contains(name.as_str()) || records.contains(word);
            assert!(is_known, "{path} uses {word}");
            used.insert(name);
        }
    }
    assert!(used.len() > 30, "{used:?}");
}

#[test]
fn the_page_of_errors_lists_the_faults() {
    let page = Page::read("docs/errors.md");
    let listed = words(page.section("Faults")).filter_map(ErrorReason::from_name);
    let listed: BTreeSet<&str> = listed.map(ErrorReason::name).collect();
    let reasons = (1..).map_while(|number| ErrorReason::try_from(number).ok());
    let faults = reasons.filter(|reason| is_fault(*reason));
    let faults: BTreeSet<&str> = faults.map(ErrorReason::name).collect();
    assert_eq!(listed, faults);
}
