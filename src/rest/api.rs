//! What the handlers share.

use std::sync::Arc;

use upload_gateway_core::gateway::{Caller, Gateway};

use super::settings::PartDataForm;
use crate::room::Room;

/// The path of the collection of uploads.
pub const BASE: &str = "/api/engine/v2/uploads";

/// The state of the handlers.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub(super) gateway: Arc<Gateway>,
    pub(super) downloads: Arc<Room>,
    pub(super) part_data: PartDataForm,
}

/// The caller of a request. Without authentication all callers are the same one.
pub(super) fn caller() -> Caller {
    Caller::default()
}
