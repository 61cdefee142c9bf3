//! The report: the number of runs, and a table of failures. The lines of the failures are printed as they happen.

use std::collections::{BTreeMap, BTreeSet};

use crate::{failed::Failed, matrix::Results, run::Case};

/// Prints the results.
pub(crate) fn print(results: &Results) {
    for call in &results.not_lied_about {
        println!("NOT LIED ABOUT {call}");
    }
    for case in &results.unreached {
        println!("not reached: {case}");
    }
    for store in &results.skipped {
        println!("SKIPPED {store}: its server is not installed");
    }
    print_table(results);
    println!(
        "lies: {} runs, {} failed, {} did not reach the call",
        results.runs,
        results.failures.len() + results.failed_trials.len(),
        results.unreached.len()
    );
}

/// By kind of failure, call and lie: the paths.
fn print_table(results: &Results) {
    let mut table: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for outcome in &results.failures {
        let kind = outcome.failed.as_ref().map(Failed::kind);
        let Case {
            store, path, rules, ..
        } = &outcome.case;
        let rule = rules
            .first()
            .map(|rule| format!("{} {}", rule.call, rule.lie));
        let row = (kind.unwrap_or_default(), rule.unwrap_or_default());
        table
            .entry(row)
            .or_default()
            .insert(format!("{store}/{path}"));
    }
    for ((kind, rule), paths) in table {
        let paths: Vec<_> = paths.into_iter().collect();
        println!("  {kind} | {rule} | {}", paths.join(" "));
    }
}
