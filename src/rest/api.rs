//! What the handlers share.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use upload_gateway_core::gateway::{Caller, Gateway};

use super::{failure::Failure, settings::PartDataForm};
use crate::auth;

/// The path of the collection of uploads.
pub const BASE: &str = "/api/engine/v2/uploads";

/// The state of the handlers.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub(super) gateway: Arc<Gateway>,
    pub(super) part_data: PartDataForm,
}

/// The caller of a request.
#[derive(Debug)]
pub(super) struct CalledBy(pub(super) Caller);

// === impl CalledBy ===

impl<S: Send + Sync> FromRequestParts<S> for CalledBy {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        Ok(Self(auth::caller(&parts.extensions)?))
    }
}
