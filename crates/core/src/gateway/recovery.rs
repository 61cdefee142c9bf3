//! Reconciles records and stores: sessions, inspections of the store, rebuilt records, and the sweeper.

pub(super) mod denials;
pub(super) mod inspect;
pub(super) mod memory;
pub(super) mod rebuild;
pub(super) mod session;
pub(super) mod sweep;
