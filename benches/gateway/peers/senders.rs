//! What sends the files: the gateway, tusd, or this process alone.

use std::{env, fmt};

use tonic::transport::{Channel, Endpoint};
use upload_gateway_client::proto::v1::{
    FileDigest, FileMetadata, GetLimitsRequest, upload_service_client::UploadServiceClient,
};

use super::tus::Tus;
use crate::{
    Result,
    direct::{self, Integrity},
    payload::Payload,
    process::{Gateway, Process},
    store::Store,
    through,
};

/// The variable with further servers.
const PEERS: &str = "PEERS";

/// Uploads by several services.
const STREAMS_PER_CONNECTION: usize = 16;

/// A sender in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// `aws-sdk-s3` with its defaults in this process.
    Direct,
    Tusd,
    Rustus,
    Gateway(Digest),
}

/// The digests that the gateway computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digest {
    Default,
    /// The MD5 of the whole file.
    Md5,
    /// None of the whole file.
    None,
    /// The MD5s of the parts, as for a store without CRC-64s.
    Parts,
}

/// A sender, ready to send.
#[derive(Debug)]
pub(super) enum Sender {
    Direct(direct::Sender),
    Tus(Name, Box<Tus>),
    Gateway(Box<Through>),
}

/// A gateway, and connections to it.
#[derive(Debug)]
pub(super) struct Through {
    gateway: Gateway,
    clients: Vec<UploadServiceClient<Channel>>,
    chunk_size: u64,
    digest: Digest,
}

// === impl Name ===

impl Name {
    /// The senders of a cell. `PEERS` names more servers, separated by spaces.
    ///
    /// # Errors
    /// It names another one than rustus.
    pub(super) fn all(every_digest: bool) -> Result<Vec<Self>> {
        let mut all = vec![Self::Direct, Self::Tusd, Self::Gateway(Digest::Default)];
        for peer in env::var(PEERS).unwrap_or_default().split_whitespace() {
            match peer {
                "rustus" => all.push(Self::Rustus),
                _ => return Err(format!("{PEERS}={peer}: there is only rustus").into()),
            }
        }
        if every_digest {
            all.extend([Digest::Md5, Digest::None, Digest::Parts].map(Self::Gateway));
        }
        Ok(all)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Direct => "direct",
            Self::Tusd => "tusd",
            Self::Rustus => "rustus",
            Self::Gateway(Digest::Default) => "gateway",
            Self::Gateway(Digest::Md5) => "gateway, MD5 of the file",
            Self::Gateway(Digest::None) => "gateway, no file digest",
            Self::Gateway(Digest::Parts) => "gateway, MD5 of parts",
        })
    }
}

// === impl Digest ===

impl Digest {
    fn metadata(self) -> FileMetadata {
        FileMetadata {
            file_digest: match self {
                Self::Default | Self::Parts => FileDigest::Auto,
                Self::Md5 => FileDigest::Md5,
                Self::None => FileDigest::None,
            }
            .into(),
            ..FileMetadata::default()
        }
    }
}

// === impl Sender ===

impl Sender {
    /// For up to `at_once` files at the same time. `None`: it is not installed.
    pub(super) async fn start(
        name: Name,
        store: &Store,
        redis_url: &str,
        at_once: usize,
    ) -> Result<Option<Self>> {
        Ok(Some(match name {
            Name::Direct => Self::Direct(direct::Sender::new(store, Integrity::Default)?),
            Name::Tusd => match Tus::tusd(store)? {
                Some(tusd) => Self::Tus(name, Box::new(tusd)),
                None => return Ok(None),
            },
            Name::Rustus => Self::Tus(name, Box::new(Tus::rustus(store)?)),
            Name::Gateway(digest) => {
                let through = Through::start(digest, store, redis_url, at_once);
                Self::Gateway(Box::new(through.await?))
            }
        }))
    }

    pub(super) fn name(&self) -> Name {
        match self {
            Self::Direct(_) => Name::Direct,
            Self::Tus(name, _) => *name,
            Self::Gateway(through) => Name::Gateway(through.digest),
        }
    }

    /// Its process. `None`: it is this one.
    pub(super) fn process(&self) -> Option<&Process> {
        match self {
            Self::Direct(_) => None,
            Self::Tus(_, tus) => Some(tus.process()),
            Self::Gateway(through) => Some(through.gateway.process()),
        }
    }

    /// Sends a file, and returns the keys of the objects that it is now.
    pub(super) async fn send(
        &self,
        number: u64,
        payload: &Payload,
        size: u64,
    ) -> Result<Vec<String>> {
        match self {
            Self::Direct(sender) => {
                let key = format!("direct/{number}");
                Ok(vec![sender.file(key, payload, size).await?])
            }
            Self::Tus(_, tus) => tus.send(payload, size).await,
            Self::Gateway(through) => through.send(number, payload, size).await,
        }
    }
}

// === impl Through ===

impl Through {
    pub(super) async fn start(
        digest: Digest,
        store: &Store,
        redis_url: &str,
        at_once: usize,
    ) -> Result<Self> {
        let gateway = match digest {
            Digest::Parts => Gateway::with_part_md5s(store, redis_url)?,
            _ => Gateway::start(store, redis_url)?,
        };
        let mut clients = Vec::new();
        for _ in 0..at_once.div_ceil(STREAMS_PER_CONNECTION) {
            let endpoint = Endpoint::from_shared(gateway.address.clone())?;
            clients.push(UploadServiceClient::new(endpoint.connect().await?));
        }
        let limits = clients[0].get_limits(GetLimitsRequest::default()).await?;
        Ok(Self {
            gateway,
            clients,
            chunk_size: u64::try_from(limits.into_inner().preferred_chunk_size)?,
            digest,
        })
    }

    pub(super) async fn send(
        &self,
        number: u64,
        payload: &Payload,
        size: u64,
    ) -> Result<Vec<String>> {
        let client = usize::try_from(number)? % self.clients.len();
        let (client, payload) = (self.clients[client].clone(), payload.clone());
        let file = (self.digest.metadata(), None);
        let upload = through::send_as(client, payload, size, self.chunk_size, file).await?;
        Ok(crate::keys(vec![upload]))
    }
}
