//! Certificates of an authority of their own.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Makes an authority, `authority.pem`, and certificates with their keys for a server on this machine, `server.pem` and
/// `server.key`, and for a client, `client.pem` and `client.key`.
pub fn write_certificates(directory: &Path) {
    write_certificates_for(directory, &["localhost", "127.0.0.1"]);
}

/// As [`write_certificates`], for a server with these names.
pub fn write_certificates_for(directory: &Path, names: &[&str]) {
    let server = names.iter().map(ToString::to_string).collect();
    let mut authority = CertificateParams::default();
    // OpenSSL takes a certificate with the name of its authority for a self-signed one.
    authority
        .distinguished_name
        .push(DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    fs::write(directory.join("authority.pem"), authority.pem()).unwrap();
    let names = [("server", server), ("client", vec!["gateway".to_owned()])];
    for (name, names) in names {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
