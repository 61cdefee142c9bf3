//! Host names of requests: which of them only this machine has, and which the operator lists.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Host;

/// A host name or an IP address without a port: `uploads.example`, `10.0.0.1`, `[fd00::1]`. Case and a dot at the end do not
/// matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(Host);

// === impl HostName ===

impl HostName {
    /// The host in the value of a `Host` header, without its port. `None`: it is malformed.
    pub(crate) fn of_header(value: &str) -> Option<Self> {
        // An IPv6 address has colons, too.
        let port = value
            .rsplit_once(':')
            .filter(|(_, port)| !port.contains(']'));
        let (name, port) = port.unwrap_or((value, ""));
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        is_port.then(|| name.parse().ok()).flatten()
    }

    /// Whether no DNS server outside this machine decides what it refers to: it is `localhost`, a name below it, or a
    /// loopback address.
    pub(crate) fn is_loopback(&self) -> bool {
        match &self.0 {
            Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        }
    }
}

impl FromStr for HostName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let host = Host::parse(text.strip_suffix('.').unwrap_or(text));
        host.map(Self)
            .map_err(|_| "expected a host name such as uploads.example, without a port")
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for HostName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_recognized_in_every_form() {
        for header in [
            "localhost",
            "localhost:8080",
            "LocalHost.:8080",
            "tunnel.localhost",
            "a.b.localhost.:1",
            "127.0.0.1:8080",
            "127.255.0.9",
            "[::1]",
            "[::1]:8080",
        ] {
            let host = HostName::of_header(header);
            assert!(host.is_some_and(|host| host.is_loopback()), "{header}");
        }
        for header in [
            "evil.example:8080",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "128.0.0.1",
            "[::2]:8080",
            "[::ffff:127.0.0.1]",
            "localhost:8080:80",
            "localhost:http",
            "user@localhost",
            "localhost/",
            "::1",
            "",
            ":8080",
        ] {
            let host = HostName::of_header(header);
            assert!(!host.is_some_and(|host| host.is_loopback()), "{header}");
        }
    }
}
