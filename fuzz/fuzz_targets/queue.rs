//! What comes from the queue and over gRPC.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use tollgate_proto::v1;
use tollgate_types::{Envelope, chat::ChatRequest, embed::EmbedRequest};

fuzz_target!(|data: &[u8]| {
    if let Ok(envelope) = v1::Envelope::decode(data) {
        let _ = Envelope::try_from(envelope);
    }
    if let Ok(request) = v1::CompleteRequest::decode(data) {
        let _ = ChatRequest::try_from(request);
    }
    if let Ok(request) = v1::EmbedRequest::decode(data) {
        let _ = EmbedRequest::try_from(request);
    }
});
