//! The native dialect: the superset model itself, as JSON.

use bytes::Bytes;
use tollgate_types::{RequestView, chat::ChatRequest};

use crate::{Invalid, openai, scan::scan};

fn read(body: &[u8]) -> Result<ChatRequest, Invalid> {
    serde_json::from_slice(body).map_err(|error| Invalid::new(None, format!("not a request: {error}")))
}

pub(crate) fn view(body: &[u8]) -> Result<RequestView, Invalid> {
    let text = scan(body).map_err(|error| Invalid::new(None, format!("not a request: {error}")))?;
    let request = read(body)?;
    Ok(RequestView {
        model: request.model,
        stream: request.stream,
        // The native answer always ends with its usage.
        include_usage: true,
        estimated_input_tokens: text.text_bytes.div_ceil(4),
        max_output_tokens: request.max_output_tokens,
    })
}

pub(crate) fn to_openai(body: &[u8], model: &str) -> Result<Bytes, Invalid> {
    let body = openai::encode(&read(body)?, model);
    serde_json::to_vec(&body)
        .map(Bytes::from)
        .map_err(|error| Invalid::new(None, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_the_model_can_say_reaches_openai() {
        let native = r#"{"model":"m","stream":true,"max_output_tokens":9,"temperature":0.5,"stop":["x"],"seed":-1,
            "reasoning_effort":"low","parallel_tool_calls":false,"tool_choice":{"named":"f"},
            "tools":[{"name":"f","description":"d","parameters":{"type":"object"},"strict":true},{"name":"g"}],
            "response_format":{"type":"json_schema","name":"s","schema":{"type":"object"},"strict":true},
            "messages":[{"role":"system","content":[{"type":"text","text":"s"}]},
              {"role":"user","content":[{"type":"text","text":"t"},{"type":"image","url":"https://h/i","detail":"low"},
                {"type":"audio","data":"AA==","format":"wav"},{"type":"file","data":"data:application/pdf;base64,AA==","filename":"a.pdf"}]},
              {"role":"assistant","tool_calls":[{"id":"c","name":"f","arguments":"{}"}]},
              {"role":"tool","tool_call_id":"c","content":[{"type":"text","text":"r"}]}]}"#;
        let sent: serde_json::Value = serde_json::from_slice(&to_openai(native.as_bytes(), "real").unwrap()).unwrap();
        insta::assert_json_snapshot!(sent);
    }
}
