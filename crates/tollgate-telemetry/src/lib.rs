//! Logs, traces, metrics and health of a role: one set-up for all of them.
//!
//! Nothing here, and nothing that is handed to it, carries a prompt, an answer, a key or personal data.

mod admin;
mod metrics;
mod propagation;
mod setup;

pub use admin::{Admin, Readiness};
pub use metrics::{Metrics, label};
pub use propagation::{adopt_grpc, adopt_http, adopt_nats, carry_grpc, carry_nats};
pub use setup::{Error, Telemetry};
