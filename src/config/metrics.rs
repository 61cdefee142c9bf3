//! The measurements: the table `[metrics]`.

use serde::{Deserialize, Serialize};

use crate::{
    metrics::{ALL_TENANTS, MAX_TENANTS},
    values::{self, InvalidKey},
};

/// What is measured beside what is always measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// The tenants whose uploads and bytes have labels of their own, at most 50; the others share one. `["*"]`: the first 50.
    #[serde(deserialize_with = "values::list")]
    pub tenants: Vec<String>,
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn validate(&self) -> Result<(), InvalidKey> {
        let problem = if self.tenants.len() > MAX_TENANTS {
            format!("must have at most {MAX_TENANTS} tenants")
        } else if self.tenants.len() > 1 && self.tenants.iter().any(|tenant| tenant == ALL_TENANTS)
        {
            format!(
                "must have no other tenant beside {ALL_TENANTS:?}, which means the first {MAX_TENANTS}"
            )
        } else {
            return Ok(());
        };
        Err(InvalidKey::new("tenants", problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_valid(tenants: Vec<String>) -> bool {
        Metrics { tenants }.validate().is_ok()
    }

    #[test]
    fn at_most_fifty_tenants_have_labels() {
        let tenants = |count| (0..count).map(|number| format!("t{number}")).collect();
        assert!(is_valid(tenants(0)) && is_valid(tenants(MAX_TENANTS)));
        assert!(!is_valid(tenants(MAX_TENANTS + 1)));
        let all = || ALL_TENANTS.to_owned();
        assert!(is_valid(vec![all()]));
        assert!(!is_valid(vec![all(), "t0".into()]));
    }
}
