//! CORS rules of stores, for operators to paste.

/// A rule that lets pages send signed requests, in the two forms that the store's tools take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsRule {
    /// What takes the JSON.
    pub json_for: &'static str,
    /// The rule as JSON.
    pub json: String,
    /// What takes the XML.
    pub xml_for: &'static str,
    /// The rule as XML.
    pub xml: String,
}

/// How long browsers may cache the answer to a preflight request, in seconds.
pub(super) const MAX_AGE: u32 = 3600;

/// An XML element for each of the values.
pub(super) fn elements(name: &str, values: &[&str]) -> String {
    let element = |value: &&str| format!("<{name}>{value}</{name}>");
    values.iter().map(element).collect()
}
