//! Who sends a request, as ingress established it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::KeyId;

/// The authenticated sender of a request. Nothing in a request body can change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The key that authenticated the request.
    pub key_id: KeyId,
    /// The key's name in the configuration, for reports.
    pub key_name: String,
    /// Labels of the key, copied to each ledger row.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The guardrail policy that applies.
    pub policy: String,
}
