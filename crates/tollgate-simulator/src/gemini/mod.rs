//! Google's generateContent, streamGenerateContent, countTokens and batchEmbedContents, as AI Studio and Vertex AI serve
//! them.

mod request;
mod wire;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    ask::Ask,
    call, embed,
    error::ApiError,
    format::{Chunk, Frame, WireFormat, event},
    script::Behaviour,
    trouble::ErrorKind,
};

/// What every thought signature of the simulator is.
pub(crate) const SIGNATURE: &str = "Z2VtaW5pIHNpbXVsYXRvciBzaWduYXR1cmU=";

/// The method of a path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Method {
    Generate,
    Stream,
    Count,
    Embed,
}

impl Method {
    /// By the name that ends a path.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "generateContent" => Some(Self::Generate),
            "streamGenerateContent" => Some(Self::Stream),
            "countTokens" => Some(Self::Count),
            "batchEmbedContents" => Some(Self::Embed),
            _ => None,
        }
    }
}

/// `models/{model}:{method}`.
pub(crate) struct Gemini {
    pub(crate) model: String,
    pub(crate) method: Method,
}

impl WireFormat for Gemini {
    fn name(&self) -> &'static str {
        match self.method {
            Method::Generate | Method::Stream => "gemini",
            Method::Count => "gemini_count",
            Method::Embed => "gemini_embed",
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if headers.contains_key(header::AUTHORIZATION) {
            return call::bearer(headers);
        }
        call::key_in(headers, "x-goog-api-key")
    }

    fn read(&self, body: &Value, models: &[String]) -> Result<Ask, ApiError> {
        if !models.contains(&self.model) {
            let message = format!("models/{} is not found for API version v1beta", self.model);
            return Err(ApiError::invalid(message).with_status(404));
        }
        let mut body = body.clone();
        request::camel(&mut body);
        let mut ask = match self.method {
            Method::Embed => request::embed(&body, &self.model)?,
            Method::Count => request::count(&body)?,
            Method::Generate | Method::Stream => request::generate(&body)?,
        };
        ask.model.clone_from(&self.model);
        ask.stream = self.method == Method::Stream;
        Ok(ask)
    }

    fn glance(&self, _: &Value) -> (Option<String>, bool) {
        (Some(self.model.clone()), self.method == Method::Stream)
    }

    fn whole(&self, frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Bytes {
        match self.method {
            Method::Count => json!({"totalTokens": ask.input_tokens}).to_string().into(),
            Method::Embed => {
                let vectors: Vec<_> = embed::vectors(ask)
                    .into_iter()
                    .map(|values| json!({"values": values}))
                    .collect();
                json!({"embeddings": vectors}).to_string().into()
            }
            Method::Generate | Method::Stream => wire::whole(frame, ask, answer, behaviour),
        }
    }

    fn stream(&self, frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Vec<Chunk> {
        wire::stream(frame, ask, answer, behaviour)
    }

    fn is_free(&self) -> bool {
        self.method == Method::Count
    }

    fn has_no_answer(&self) -> bool {
        self.method == Method::Embed
    }

    fn error(&self, error: &ApiError) -> Response {
        // A key that is not valid is a bad request to this service.
        let status = if error.status == 401 { 400 } else { error.status };
        call::error_response(status, &body(error, status))
    }

    fn error_inside(&self, error: &ApiError) -> Bytes {
        event(&body(error, error.status).to_string())
    }

    fn error_whole(&self, error: &ApiError) -> Bytes {
        body(error, error.status).to_string().into()
    }
}

fn body(error: &ApiError, status: u16) -> Value {
    let name = match status {
        400 => "INVALID_ARGUMENT",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        status if status < 500 => "FAILED_PRECONDITION",
        _ => "INTERNAL",
    };
    let message = match error.means {
        Some(ErrorKind::ContextLength) => {
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
        }
        Some(ErrorKind::ContentPolicy) => "The request was blocked by the service's content policy.",
        Some(ErrorKind::Overloaded) => "The model is overloaded. Please try again later.",
        Some(ErrorKind::Quota) => "You exceeded your current quota, please check your plan and billing details.",
        None if error.status == 401 => "API key not valid. Please pass a valid API key.",
        None => error.message.as_str(),
    };
    let mut body = json!({"error": {"code": status, "message": message, "status": name}});
    if error.status == 401 {
        body["error"]["details"] = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
        }]);
    }
    body
}
