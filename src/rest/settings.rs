//! The configuration of the HTTP API: the table `[rest]`.

use serde::{Deserialize, Serialize};

use crate::{auth::CredentialSource, cors::CorsOrigin, values};

/// How the HTTP API answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The form of `part_data` in answers.
    pub part_data: PartDataForm,
    /// The origins whose pages may call the API and the embedded S3 from a browser. Empty: only the API's own.
    #[serde(deserialize_with = "values::list")]
    pub cors_origins: Vec<CorsOrigin>,
    /// Where GET and HEAD may carry a credential besides headers: `cookie`, `query`. Needed for images in pages, which send
    /// no headers. Under the names of PlaceOS, `bearer_token` and `api-key`.
    #[serde(deserialize_with = "values::list")]
    pub credentials_in: Vec<CredentialSource>,
}

/// The form of `part_data` in answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartDataForm {
    /// An array of parts.
    #[default]
    Array,
    /// An object of parts by part number, which older PlaceOS clients need.
    Map,
}
