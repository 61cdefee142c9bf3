//! The table `[traces]`.

use std::path::PathBuf;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Visitor},
};

use crate::values::{Endpoint, InvalidKey};

/// Which calls are traced, and where their spans go: the table `[traces]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesConfig {
    /// The collector, which speaks OTLP over gRPC. Not set: no call is traced.
    pub endpoint: Option<Endpoint>,
    /// The authorities of a collector with `https`, in PEM, instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// The share of calls that are traced, from 0 to 1, if their callers have not decided it.
    pub sample_ratio: Ratio,
}

/// A share, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Ratio(f64);

// === impl TracesConfig ===

impl TracesConfig {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// The first key that is invalid.
    pub fn validate(&self) -> Result<(), InvalidKey> {
        let is_plain = self.endpoint.as_ref().is_none_or(Endpoint::is_plain);
        if self.ca_file.is_some() && is_plain {
            let problem = "needs an endpoint that begins with https://";
            return Err(InvalidKey::new("ca_file", problem));
        }
        Ok(())
    }
}

// === impl Ratio ===

impl Ratio {
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }

    fn new(number: f64) -> Option<Self> {
        (0.0..=1.0).contains(&number).then_some(Self(number))
    }
}

impl Default for Ratio {
    fn default() -> Self {
        Self(1.0)
    }
}

// It is never NaN.
impl Eq for Ratio {}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Ratio;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a number from 0 to 1")
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Ratio, E> {
                Ratio::new(number).ok_or_else(|| E::custom("must be from 0 to 1"))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Ratio, E> {
                match number {
                    0 => Ok(Ratio(0.0)),
                    1 => Ok(Ratio(1.0)),
                    _ => Err(E::custom("must be from 0 to 1")),
                }
            }

            // The form of an environment variable.
            fn visit_str<E: Error>(self, text: &str) -> Result<Ratio, E> {
                let number = text.trim().parse();
                self.visit_f64(number.map_err(|_| E::custom("must be from 0 to 1"))?)
            }
        }

        deserializer.deserialize_f64(Number)
    }
}
