//! Guardrail: checks prompts on their way to a provider, and answers on their way back.

mod checks;
mod deny;
mod fold;
mod mask;
mod screen;
mod service;
mod stage;
mod window;

pub use checks::{Checker, Session, Verdict};
pub use service::{Error, Service};
pub use window::{Denied, Window};
