//! The upload gateway.
