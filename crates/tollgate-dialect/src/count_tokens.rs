//! Counting a conversation's tokens: by the provider where it has an endpoint for that, else by our own count.

use bytes::Bytes;
use tollgate_types::{Dialect, Usage};

use crate::{
    BadAnswer, Refused,
    answer::{Answer, Plain},
    anthropic, gemini, native, prompt_tokens,
    side::{Losses, Target},
    translate::{Order, read},
};

/// What becomes of a wish to count.
pub(crate) enum Counting {
    Call(Box<(String, Bytes, Answer)>),
    Counted(Bytes),
}

/// Path and body of the call, and how its answer is read; or the count.
pub(crate) fn translate(order: &Order<'_>, losses: &mut Losses) -> Result<Counting, Refused> {
    let client = order.client;
    let target = Target {
        model: order.model,
        quirks: order.quirks,
    };
    let (path, body, count): (_, _, Count) = match order.provider {
        Dialect::Anthropic => {
            let body = if client == Dialect::Anthropic {
                anthropic::count::count_body(order.body, order.model)?
            } else {
                anthropic::count::write_count(&read(client, order.body, order.view)?, &target, losses)?
            };
            ("messages/count_tokens".to_owned(), body, anthropic::count::read_count)
        }
        Dialect::Gemini => {
            let body = if client == Dialect::Gemini {
                Bytes::copy_from_slice(order.body)
            } else {
                gemini::count::write_count(&read(client, order.body, order.view)?, &target, losses)?
            };
            (gemini::count::path_count(order.model), body, gemini::count::read_count)
        }
        Dialect::OpenaiChat | Dialect::OpenaiResponses | Dialect::Bedrock | Dialect::Native => {
            return Ok(Counting::Counted(frame(client, prompt_tokens(order.body))));
        }
    };
    let (same, model) = (client == order.provider, order.model.to_owned());
    let read = move |body: &[u8]| {
        let tokens = count(body)?;
        Ok(Plain {
            frame: if same {
                Bytes::copy_from_slice(body)
            } else {
                frame(client, tokens)
            },
            // Counting costs nothing.
            usage: Some(Usage::default()),
            model: Some(model.clone()),
        })
    };
    Ok(Counting::Call(Box::new((path, body, Answer::plain(Box::new(read))))))
}

type Count = fn(&[u8]) -> Result<u64, BadAnswer>;

fn frame(client: Dialect, tokens: u64) -> Bytes {
    match client {
        Dialect::Gemini => gemini::count::count_answer(tokens),
        Dialect::Native => native::write_count(tokens),
        _ => anthropic::count::count_answer(tokens),
    }
}
