//! The configuration of the process: defaults, then a TOML file, then `UPLOAD_GATEWAY_…` variables, then flags.
//!
//! A key inside a table has two underscores in its variable (`limits.parts_in_flight` is
//! `UPLOAD_GATEWAY_LIMITS__PARTS_IN_FLIGHT`), a key of the storage `media` is `UPLOAD_GATEWAY_STORAGE__MEDIA__…`, and
//! with `…__KIND` the file needs no such storage.
//! An unknown key is an error in every source. Only this module reads environment variables.
//!
//! Each adapter owns the type of its table; this module combines them.

mod error;
mod keys;
mod limits;
mod load;
mod metrics;
mod process;
mod reader;
mod records;
mod resume_tokens;
mod storage;
mod sweeper;
mod table;

pub use self::{
    error::ConfigError,
    keys::KeyConfig,
    limits::{Limits, PerOwner},
    load::{
        FILE_VARIABLE, Flags, PROFILE_VARIABLE, SERVER_VARIABLE, from_process, load, load_within,
    },
    metrics::Metrics,
    process::{Auth, Config, Faults, Log, LogFormat},
    records::{Keep, Records},
    resume_tokens::ResumeTokens,
    storage::{StorageConfig, StorageOptions, StoreConfig},
    sweeper::Sweeper,
};
pub use crate::{
    auth::{ApiKeyConfig, ClientCertificateConfig, CredentialSource, IssuerConfig, Role},
    blobs::{
        azure::AzureConfig,
        s3::{Profile as S3Profile, S3Config},
    },
    connections::{ClientAuth, TlsConfig},
    cors::CorsOrigin,
    embedded_s3::EmbeddedS3Config,
    hosts::HostName,
    rest::PartDataForm,
    state::redis::{RedisConfig, RedisMode, RedisUrl},
    traces::{Ratio, TracesConfig},
    values::{ByteSize, Endpoint, Secret},
};
