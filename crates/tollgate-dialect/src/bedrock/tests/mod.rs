//! Requests as they are sent, and answers as they are read.

mod answers;
mod requests;
mod streams;

use serde_json::Value;
use tollgate_types::chat::ChatRequest;

use super::provider;
use crate::{
    Refused,
    side::{Losses, OnUnsupported, Quirks, Reader, Target},
};

const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const OLD_CLAUDE: &str = "anthropic.claude-3-7-sonnet-20250219-v1:0";
const NOVA: &str = "amazon.nova-pro-v1:0";
const LLAMA: &str = "meta.llama3-70b-instruct-v1:0";

fn request(json: Value) -> ChatRequest {
    serde_json::from_value(json).unwrap()
}

fn written(request: &ChatRequest, model: &str, losses: &mut Losses) -> Result<(Value, Box<dyn Reader>), Refused> {
    let quirks = Quirks::default();
    let (body, reader) = provider::write(request, &Target { model, quirks }, losses)?;
    Ok((serde_json::from_slice(&body).unwrap(), reader))
}

/// The body, when nothing is refused.
fn body(json: Value, model: &str) -> Value {
    written(&request(json), model, &mut Losses::new(OnUnsupported::Refuse))
        .unwrap_or_else(|error| panic!("{error}"))
        .0
}

/// The body without what Converse cannot say, and what that is.
fn without(json: Value, model: &str) -> (Value, Vec<String>) {
    let mut losses = Losses::new(OnUnsupported::Drop);
    let (body, _) = written(&request(json), model, &mut losses).unwrap_or_else(|error| panic!("{error}"));
    (body, losses.dropped)
}

fn refused(json: Value, model: &str) -> String {
    match written(&request(json), model, &mut Losses::new(OnUnsupported::Refuse)) {
        Ok(_) => panic!("not refused"),
        Err(Refused::Unsupported(feature)) => feature,
        Err(Refused::Invalid(invalid)) => format!("invalid: {}", invalid.param.unwrap_or_default()),
    }
}
