//! The principal that a new credential stands for.

use crate::auth::Role;

#[derive(Debug, clap::Args)]
pub(super) struct Principal {
    /// The tenant of the principal; not for operators
    #[arg(long, default_value = "")]
    pub(super) tenant: String,
    /// The subject of the principal, which owns its uploads
    #[arg(long)]
    pub(super) subject: String,
    /// The roles of the principal, with commas: support, admin, operator
    #[arg(long, value_delimiter = ',')]
    pub(super) roles: Vec<Role>,
}
