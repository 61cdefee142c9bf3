//! The codec of the services: that of prost, but a request that is not valid is the caller's error, not the server's.

use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};
use upload_gateway_core::error::Error;

use crate::status::grpc_status;

/// Encodes messages of type `T`, and decodes those of type `U`.
#[derive(Debug)]
pub struct RequestCodec<T, U>(ProstCodec<T, U>);

/// Decodes requests.
#[derive(Debug)]
pub struct RequestDecoder<U>(ProstDecoder<U>);

// === impl RequestCodec ===

impl<T, U> Default for RequestCodec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for RequestCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = RequestDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder(self.0.decoder())
    }
}

// === impl RequestDecoder ===

impl<U: Message + Default> Decoder for RequestDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        self.0.decode(buffer).map_err(|status| {
            let message = format!("a message is not valid: {}", status.message());
            grpc_status(&Error::sequence(message))
        })
    }
}
