//! The names of reasons in errors.

use crate::proto::v1::ErrorReason;

/// What the names of the proto's values start with, and the names in errors do not.
const PREFIX: &str = "ERROR_REASON_";

// === impl ErrorReason ===

impl ErrorReason {
    /// The name in errors: `reason` of `google.rpc.ErrorInfo`, and of HTTP errors.
    ///
    /// # Examples
    /// ```
    /// use upload_gateway_client::proto::v1::ErrorReason;
    ///
    /// assert_eq!(ErrorReason::WrongOffset.name(), "WRONG_OFFSET");
    /// ```
    pub fn name(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix(PREFIX).unwrap_or(name)
    }

    /// The reason with this name in errors. None if this version of the API has no such reason.
    ///
    /// # Examples
    /// ```
    /// use upload_gateway_client::proto::v1::ErrorReason;
    ///
    /// assert_eq!(ErrorReason::from_name("WRONG_OFFSET"), Some(ErrorReason::WrongOffset));
    /// assert_eq!(ErrorReason::from_name("TOO_HOT"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        Self::from_str_name(&format!("{PREFIX}{name}"))
            .filter(|reason| *reason != Self::Unspecified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_that_leads_back_to_it() {
        let reasons = (1..).map_while(|number| ErrorReason::try_from(number).ok());
        for reason in reasons {
            let name = reason.name();
            assert!(!name.starts_with(PREFIX), "{name}");
            assert_eq!(ErrorReason::from_name(name), Some(reason), "{name}");
        }
        assert_eq!(ErrorReason::from_name("UNSPECIFIED"), None);
    }
}
