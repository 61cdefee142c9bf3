//! Value types that the configuration shares with the adapters: sizes, secrets, endpoints, listen addresses.

use std::{
    fmt,
    marker::PhantomData,
    net::{SocketAddr, ToSocketAddrs},
    str::FromStr,
};

use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IntoDeserializer, value::SeqAccessDeserializer},
};
use url::{Host, Url};

/// A number of bytes: an integer, or text with a unit (`"5MiB"`, `"256 KiB"`, `"1GB"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A secret text. It is redacted in logs and in a printed configuration, and erased from memory when it is dropped.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(SecretString);

/// The address of a store: an `http` or `https` URL without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

/// A key of a table that has an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct InvalidKey {
    /// The key, without the path of its table.
    pub key: &'static str,
    /// Why the value is invalid.
    pub problem: String,
}

/// What is printed instead of a secret.
pub const REDACTED: &str = "[redacted]";

/// Units by name. The powers of 1,024 come first: sizes are printed in them.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a list, or text with commas, which is the form of a list in an environment variable.
///
/// # Errors
/// The value is neither, or an item is invalid.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct List<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list, or text with commas")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            let items = text.split(',').map(str::trim);
            items
                .filter(|item| !item.is_empty())
                .map(|item| T::deserialize(item.to_owned().into_deserializer()))
                .collect()
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<Vec<T>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(items))
        }
    }

    deserializer.deserialize_any(List(PhantomData))
}

/// A listen address, from `address:port` or `host:port`. A host name is resolved: the first of its IPv4 addresses counts,
/// otherwise its first address.
///
/// # Errors
/// The text is malformed, or the name has no address.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let is_name = |host: &str| !host.is_empty() && !host.contains([':', '[', ' ']);
    let parts = text.rsplit_once(':');
    if !parts.is_some_and(|(host, port)| is_name(host) && port.parse::<u16>().is_ok()) {
        return Err("expected an address and a port, such as 127.0.0.1:50051, [::1]:50051 or localhost:50051".into());
    }
    let found = text
        .to_socket_addrs()
        .map_err(|error| format!("cannot resolve {text}: {error}"))?;
    let found: Vec<_> = found.collect();
    let first = found.iter().find(|address| address.is_ipv4());
    let first = first.or(found.first()).copied();
    first.ok_or_else(|| format!("cannot resolve {text}: the name has no address"))
}

/// Reads a [`listen_address`], if there is one.
///
/// # Errors
/// As [`listen_address`].
pub fn read_optional_listen_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    read_listen_address(deserializer).map(Some)
}

/// Reads a [`listen_address`].
///
/// # Errors
/// As [`listen_address`].
pub fn read_listen_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    listen_address(&text).map_err(de::Error::custom)
}

// === impl ByteSize ===

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS[..4]
            .iter()
            .find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes));
        match unit {
            Some((name, bytes)) => write!(formatter, "{}{name}", self.0 / bytes),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a size such as 5242880 or \"5MiB\"";
        let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
        let unit = text[digits.len()..].trim();
        let factor = match unit {
            "" => 1,
            unit => {
                UNITS
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                    .ok_or(EXPECTED)?
                    .1
            }
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or(EXPECTED)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer) {
            Ok(Form::Number(bytes)) => Ok(Self(bytes)),
            Ok(Form::Text(text)) => text.parse().map_err(de::Error::custom),
            Err(_) => Err(de::Error::custom(
                "expected a size such as 5242880 or \"5MiB\"",
            )),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Secret ===

impl Secret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

// === impl InvalidKey ===

impl InvalidKey {
    /// The value of `key` is invalid because of `problem`.
    pub fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self {
            key,
            problem: problem.into(),
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// The URL.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The URL as text, without a slash at the end.
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Whether connections to it are not encrypted.
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// Whether it is a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self.0.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).ok();
        url.filter(|url| matches!(url.scheme(), "http" | "https"))
            .filter(|url| url.username().is_empty() && url.password().is_none())
            // A parameter may be a credential, too, such as a shared access signature.
            .filter(|url| url.query().is_none() && url.fragment().is_none())
            .map(Self)
            .ok_or(
                "expected a URL that begins with https:// or http:// and contains no credentials and no parameters",
            )
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024_and_of_1000() {
        for (text, bytes) in [
            ("5242880", 5_242_880),
            ("5MiB", 5_242_880),
            ("5 mib", 5_242_880),
            ("256KiB", 262_144),
            ("5MB", 5_000_000),
            ("0", 0),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "5 apples", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_shown_in_the_largest_whole_unit_and_reads_back() {
        for (bytes, text) in [
            (0, "0"),
            (5 << 20, "5MiB"),
            (1000, "1000"),
            (1 << 30, "1GiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
    }

    #[test]
    fn secrets_are_redacted() {
        let secret = Secret::from("s3cr3t");
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"[redacted]\"");
    }
}
