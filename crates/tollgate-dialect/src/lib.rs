//! The wire formats: what a client's bytes say, what a provider is sent, and what its answer says.
//!
//! When client and provider speak the same dialect the bytes go through with only our own fields rewritten, so that a
//! field nobody here has heard of survives. Else they are translated through [`tollgate_types::chat`]; what the
//! provider's dialect cannot say is refused by name, never left out in silence.
//!
//! A dialect is a folder of its own with up to three sides: `client` reads requests and writes answers, `provider` writes
//! requests and reads answers, `frames` knows where the text is in the events of a stream. They meet in [`side`].

mod answer;
mod count;
mod count_tokens;
mod embed;
mod error;
mod events;
#[cfg(test)]
mod golden;
mod names;
mod native;
pub mod openai;
mod provenance;
mod replay;
mod scan;
mod side;
mod splice;
pub mod sse;
pub mod text;
mod translate;

pub mod anthropic;
pub mod bedrock;
pub mod gemini;
pub mod responses;

pub use answer::{Answer, Summary};
pub use count::{Tally, prompt_tokens};
pub use error::{BadAnswer, Invalid, ProviderError, Refused};
pub use events::{Events, Framing};
pub use replay::{restream, unstreamed};
pub use scan::is_deeper;
pub use translate::{Call, Order, Prepared, path_segment, provider_error, translate, view};
