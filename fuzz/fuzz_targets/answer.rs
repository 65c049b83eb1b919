//! What a provider sends, whole, as an error and as a stream that is cut anywhere, for every dialect of client.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_dialect::{Events, Framing, Order, Prepared, provider_error, translate, view};
use tollgate_types::{
    Dialect, Operation,
    provider::{OnUnsupported, Quirks},
};

const CLIENTS: [(Dialect, &str); 5] = [
    (Dialect::OpenaiChat, r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#),
    (Dialect::OpenaiResponses, r#"{"model":"m","input":"x","stream":true}"#),
    (Dialect::Anthropic, r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}],"stream":true}"#),
    (Dialect::Gemini, r#"{"contents":[{"role":"user","parts":[{"text":"x"}]}]}"#),
    (Dialect::Native, r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"stream":true}"#),
];

fuzz_target!(|data: &[u8]| {
    let [client, provider, cut, bytes @ ..] = data else { return };
    let (client, body) = CLIENTS[usize::from(*client) % CLIENTS.len()];
    let provider = Dialect::ALL[usize::from(*provider) % 5];
    let seen = view(client, Operation::Chat, Some(("m", true)), body.as_bytes()).expect("a valid request");
    let call = || {
        let order = Order {
            client,
            provider,
            view: &seen,
            body: body.as_bytes(),
            model: "m",
            quirks: Quirks::default(),
            unsupported: OnUnsupported::Refuse,
        };
        match translate(&order) {
            Ok(Prepared::Call(call)) => call,
            _ => panic!("a plain chat is a call"),
        }
    };
    let _ = provider_error(provider, bytes);
    let _ = call().answer.whole(bytes);
    let call = call();
    let mut answer = call.answer;
    let framing = if provider == Dialect::Bedrock { Framing::EventStream } else { Framing::Sse };
    let mut events = Events::new(framing, 1 << 16);
    for piece in bytes.chunks(usize::from(*cut).max(1)) {
        events.push(piece);
        loop {
            match events.next_event() {
                Ok(Some(event)) => {
                    if answer.event(&event).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let _ = answer.closed();
    let _ = answer.counted_output();
});
