//! How the REST API answers.

use serde::{Deserialize, Serialize};

use super::values::{self, CorsOrigin};

/// How the REST API answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rest {
    /// The form of `part_data` in answers.
    pub part_data: PartDataForm,
    /// The origins whose pages may call the API from a browser. None: only its own.
    #[serde(deserialize_with = "values::list")]
    pub cors_origins: Vec<CorsOrigin>,
}

/// The form of `part_data` in answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartDataForm {
    /// An array of parts.
    #[default]
    Array,
    /// An object of parts by their number, which older PlaceOS clients need.
    Map,
}
