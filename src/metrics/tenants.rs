//! Which tenants have a label of their own.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use super::OTHER;

/// How many tenants have one at most.
pub(crate) const MAX: usize = 50;

/// The item of the list that means all tenants.
pub(crate) const ALL: &str = "*";

/// The tenants that have labels. The others share one.
pub(super) enum Tenants {
    /// Tenants are not measured.
    None,
    /// These.
    Listed(HashSet<String>),
    /// The first ones that are noted.
    First(Mutex<HashSet<String>>),
}

// === impl Tenants ===

impl Tenants {
    /// Those of the configuration.
    pub(super) fn new(configured: &[String]) -> Self {
        match configured {
            [] => Self::None,
            [all] if all == ALL => Self::First(Mutex::default()),
            listed => Self::Listed(listed.iter().take(MAX).cloned().collect()),
        }
    }

    /// The label of a tenant. `None`: it is not measured.
    pub(super) fn label(&self, tenant: &str) -> Option<String> {
        let is_known = match self {
            Self::None => return None,
            Self::Listed(listed) => listed.contains(tenant),
            Self::First(known) => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.len() < MAX {
                    known.insert(tenant.to_owned());
                }
                known.contains(tenant)
            }
        };
        Some(if is_known { tenant } else { OTHER }.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(configured: &[&str]) -> Vec<Option<String>> {
        let configured: Vec<String> = configured.iter().map(ToString::to_string).collect();
        let tenants = Tenants::new(&configured);
        let all = (0..MAX + 10).map(|number| format!("t{number}"));
        all.map(|tenant| tenants.label(&tenant)).collect()
    }

    #[test]
    fn the_first_tenants_have_labels_and_the_rest_share_one() {
        let labels = labels(&[ALL]);
        assert_eq!(labels[MAX - 1].as_deref(), Some("t49"));
        assert!(
            labels[MAX..]
                .iter()
                .all(|label| label.as_deref() == Some(OTHER))
        );
    }

    #[test]
    fn listed_tenants_have_labels_and_without_a_list_none_has() {
        let some = labels(&["t7", "t59"]);
        assert_eq!(some[7].as_deref(), Some("t7"));
        assert_eq!(some[59].as_deref(), Some("t59"));
        assert_eq!(some[8].as_deref(), Some(OTHER));
        assert!(labels(&[]).iter().all(Option::is_none));
    }
}
