//! What brings records and stores in line: sessions, inspections of the store, rebuilt records, the sweeper.

pub(super) mod inspect;
pub(super) mod rebuild;
pub(super) mod session;
pub(super) mod sweep;
