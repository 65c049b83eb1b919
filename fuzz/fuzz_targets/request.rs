//! What a stranger sends to a door, for every dialect of client and provider.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_dialect::{Order, prompt_tokens, translate, view};
use tollgate_types::{
    Dialect, Operation,
    provider::{OnUnsupported, Quirks},
};

const OPERATIONS: [Operation; 3] = [Operation::Chat, Operation::Embed, Operation::CountTokens];

fuzz_target!(|data: &[u8]| {
    let [client, provider, body @ ..] = data else { return };
    let client = Dialect::ALL[usize::from(*client) % Dialect::ALL.len()];
    let operation = OPERATIONS[usize::from(*provider >> 4) % OPERATIONS.len()];
    let provider = Dialect::ALL[usize::from(*provider & 15) % Dialect::ALL.len()];
    let _ = tollgate_dialect::is_deeper(body, 100);
    let Ok(seen) = view(client, operation, Some(("model", body.len() % 2 == 0)), body) else { return };
    for unsupported in [OnUnsupported::Refuse, OnUnsupported::Drop] {
        let order = Order {
            client,
            provider,
            view: &seen,
            body,
            model: "gemini-3-claude-sonnet-4-5",
            quirks: Quirks::default(),
            unsupported,
        };
        let _ = translate(&order);
    }
    if body.len() < 4096 {
        let _ = prompt_tokens(body);
    }
});
