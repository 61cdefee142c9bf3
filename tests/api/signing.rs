//! Direct uploads, call by call as a client makes them: to the embedded S3, a strict S3 server and Azurite, the last
//! two with Redis as the state store.

mod claims;
mod flow;
mod mixed;
mod requests;

use crate::common::{
    self, signing_client as client,
    stores::{self, for_each_digest, for_each_store},
};
