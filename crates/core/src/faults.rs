//! Faults on demand, for tests of the gateway and of its clients: a call names in a header what is to go wrong while it
//! runs. Nothing of this is in the way unless `faults.enabled` is configured.
//!
//! A [`Plan`] is made of the header at the edge, which lets the call [carry](crate::call) it along. [`FaultyState`] and
//! [`FaultyStore`] stand before the real stores and act on the plan of whoever calls; [`cut()`] ends a stream.

mod inject;
mod plan;

/// Writes the methods of a port's decorator, one line each, and the list of their names.
macro_rules! decorated {
    (
        $port:literal: $port_trait:ident for $name:ident as $calls:ident
        $(async fn $call:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*
        $(as it is { $($plain:tt)* })?
    ) => {
        /// The calls that can be named.
        pub(super) const $calls: &[&str] = &[$(concat!($port, ".", stringify!($call))),*];

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl $port_trait for $name {
            $(
                async fn $call(&self, $($argument: $type),*) -> Result<$answer> {
                    let call = self.inner.$call($($argument),*);
                    inject(concat!($port, ".", stringify!($call)), call).await
                }
            )*
            $($($plain)*)?
        }
    };
}

mod blobs;
mod cut;
mod state;

pub use self::{blobs::FaultyStore, cut::cut, plan::Plan, state::FaultyState};

/// The header, or on gRPC the metadata, that names faults.
pub const HEADER: &str = "x-upload-gateway-fault";

/// The calls to a store that can be named, `state.get`, `store.commit`…
fn calls() -> impl Iterator<Item = &'static str> {
    let all = [state::CALLS, blobs::CALLS, blobs::SIGNER_CALLS];
    all.into_iter().flatten().copied()
}
