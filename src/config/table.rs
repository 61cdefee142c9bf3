//! Declares the tables of the configuration whose keys have ranges.

use std::{
    fmt::Display,
    ops::{Bound, RangeBounds},
};

use crate::values::InvalidKey;

/// Declares a table. The documentation, type, default and range of a key stand together, and nowhere else.
macro_rules! table {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[$documentation:meta])* pub $key:ident: $type:ty = $default:expr $(, in $range:expr)?;)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$documentation])* pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $name {
            /// Checks the ranges of the keys.
            fn check_ranges(&self) -> Result<(), $crate::values::InvalidKey> {
                $($($crate::config::table::check_range(stringify!($key), &self.$key, &$range)?;)?)*
                Ok(())
            }
        }
    };
}

pub(super) use table;

/// Checks that the value of `key` is within `range`.
pub(super) fn check_range<T: Display + PartialOrd>(
    key: &'static str,
    value: &T,
    range: &impl RangeBounds<T>,
) -> Result<(), InvalidKey> {
    if range.contains(value) {
        return Ok(());
    }
    let problem = match (range.start_bound(), range.end_bound()) {
        (Bound::Included(min), Bound::Included(max)) => format!("must be between {min} and {max}"),
        (Bound::Included(min), _) => format!("must be at least {min}"),
        _ => "is out of range".into(),
    };
    Err(InvalidKey::new(key, problem))
}
