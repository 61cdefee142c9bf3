//! Random certificates.

use super::{ClientCertificateConfig, Names};

/// The names of a certificate are read without a panic; a SPIFFE id is of its trust domain, and the only URI.
pub fn certificate_names(bytes: &[u8]) {
    let Some(names) = Names::of(bytes) else {
        return;
    };
    let spiffe = ClientCertificateConfig {
        spiffe_trust_domain: Some("example.org".into()),
        tenant: "acme".into(),
        ..ClientCertificateConfig::default()
    };
    if let Some(subject) = spiffe.subject(&names) {
        assert_eq!(names.uris, [subject]);
        assert!(subject.starts_with("spiffe://example.org/"), "{subject}");
    }
    let dns = ClientCertificateConfig {
        dns_names: vec!["signage.example".into()],
        tenant: "acme".into(),
        ..ClientCertificateConfig::default()
    };
    if let Some(subject) = dns.subject(&names) {
        assert!(subject.eq_ignore_ascii_case("signage.example"), "{subject}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_a_certificate_with_names() {
        let seeds =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/certificate_names");
        for seed in std::fs::read_dir(seeds).unwrap() {
            let names = Names::of(&std::fs::read(seed.unwrap().path()).unwrap()).unwrap();
            assert!(!names.uris.is_empty() || !names.dns.is_empty());
        }
    }
}
