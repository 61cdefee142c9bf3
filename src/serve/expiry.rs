//! When what the process authenticates with expires.

use std::{path::PathBuf, sync::Arc};

use upload_gateway_core::gateway::Storages;

use crate::{
    auth::Authentication,
    certificates::{self, Validity},
    config::Config,
    metrics::Expiries,
};

/// Finds out what expires when.
#[derive(Debug, Clone)]
pub(super) struct Expiry {
    certificates: Arc<[Certificates]>,
    authentication: Authentication,
}

/// A file with certificates.
#[derive(Debug)]
struct Certificates {
    path: PathBuf,
    /// Whether the file lists authorities: then the one that expires last counts, because a list keeps old ones for a while.
    /// A chain works until its first certificate expires.
    are_authorities: bool,
}

// === impl Expiry ===

impl Expiry {
    /// What the configuration names.
    pub(super) fn new(config: &Config, authentication: &Authentication) -> Self {
        let own = [&config.tls.cert_file, &config.redis.client_cert_file];
        let others = [&config.tls.client_ca_file, &config.redis.ca_file];
        let of_clients = config.client_certificate.iter();
        let of_clients = of_clients.map(|table| &table.ca_file);
        let others = others.into_iter().flatten().chain(of_clients);
        let file = |are_authorities| {
            move |path: &PathBuf| Certificates {
                path: path.clone(),
                are_authorities,
            }
        };
        let own = own.into_iter().flatten().map(file(false));
        Self {
            certificates: own.chain(others.map(file(true))).collect(),
            authentication: authentication.clone(),
        }
    }

    /// What expires when, now. Reads the files. One that cannot be read or used is left out.
    pub(super) async fn read(&self, storages: &Storages) -> Expiries {
        let files = Arc::clone(&self.certificates);
        let read = move || {
            let files = files.iter();
            files
                .filter_map(|file| Some((file.path.display().to_string(), file.validity()?)))
                .collect()
        };
        let credentials = storages.iter().filter_map(|storage| {
            let at = storage.store.credentials_expire_at()?;
            Some((storage.id.clone(), at))
        });
        Expiries {
            credentials: credentials.collect(),
            certificates: tokio::task::spawn_blocking(read).await.unwrap_or_default(),
            issuer_keys: self.authentication.issuer_keys_expire_at(),
        }
    }
}

// === impl Certificates ===

impl Certificates {
    fn validity(&self) -> Option<Validity> {
        let pem = certificates::read(&self.path).ok()?;
        let all = certificates::validities(&self.path, &pem).ok()?.into_iter();
        match self.are_authorities {
            true => all.max_by_key(|validity| validity.expires_at),
            false => all.min_by_key(|validity| validity.expires_at),
        }
    }
}
