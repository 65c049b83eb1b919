//! Embeddings, between OpenAI's dialect, Gemini's and ours.

use bytes::Bytes;
use tollgate_types::{
    Dialect,
    embed::{EmbedRequest, EmbedResponse},
};

use crate::{
    BadAnswer, Refused,
    answer::{Answer, Plain},
    gemini, native,
    openai::embed as openai,
    side::Losses,
    translate::Order,
};

/// Path and body of the call, and how its answer is read.
pub(crate) fn translate(order: &Order<'_>, losses: &mut Losses) -> Result<(String, Bytes, Answer), Refused> {
    let Order { body, model, .. } = *order;
    let cannot = || Refused::Unsupported("embeddings".to_owned());
    if order.client == Dialect::OpenaiChat && order.provider == Dialect::OpenaiChat {
        let read = |body: &[u8]| Ok(plain(openai::read_answer(body)?, Bytes::copy_from_slice(body)));
        return Ok((
            "embeddings".to_owned(),
            openai::readdress(body, model)?,
            Answer::plain(Box::new(read)),
        ));
    }
    let (request, write) = match order.client {
        Dialect::OpenaiChat => {
            let (request, in_base64) = openai::read(body)?;
            let write = move |answer: &EmbedResponse| openai::write_answer(answer, in_base64);
            (request, Box::new(write) as Write)
        }
        Dialect::Native => (native::read_embed(body)?, Box::new(native::write_embed) as Write),
        _ => return Err(cannot()),
    };
    for feature in &request.beyond {
        losses.cannot(feature)?;
    }
    let (path, body, read) = write_request(order.provider, &request, model, losses)?.ok_or_else(cannot)?;
    let (expected, named) = (request.input.len(), model.to_owned());
    let read = move |body: &[u8]| {
        let mut answer = read(body)?;
        if answer.vectors.len() != expected {
            return Err(BadAnswer::Lacks("a vector for each input"));
        }
        if answer.model.is_empty() {
            answer.model.clone_from(&named);
        }
        let frame = write(&answer);
        Ok(plain(answer, frame))
    };
    Ok((path, body, Answer::plain(Box::new(read))))
}

type Write = Box<dyn Fn(&EmbedResponse) -> Bytes + Send>;
type Read = fn(&[u8]) -> Result<EmbedResponse, BadAnswer>;

fn write_request(
    provider: Dialect,
    request: &EmbedRequest,
    model: &str,
    losses: &mut Losses,
) -> Result<Option<(String, Bytes, Read)>, Refused> {
    Ok(match provider {
        // Both of OpenAI's dialects have the same embeddings.
        Dialect::OpenaiChat | Dialect::OpenaiResponses => Some((
            "embeddings".to_owned(),
            openai::write(request, model),
            openai::read_answer,
        )),
        Dialect::Gemini => {
            let body = gemini::embed::write_embed(request, model, losses)?;
            Some((gemini::embed::path_embed(model), body, gemini::embed::read_embed))
        }
        Dialect::Anthropic | Dialect::Bedrock | Dialect::Native => None,
    })
}

fn plain(answer: EmbedResponse, frame: Bytes) -> Plain {
    Plain {
        frame,
        usage: answer.usage,
        model: Some(answer.model),
    }
}
