//! Who sends a request, as ingress established it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{KeyId, Tenant};

/// The authenticated sender of a request. Nothing in a request body can change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The key that authenticated the request.
    pub key_id: KeyId,
    /// The key's name, for reports.
    pub key_name: String,
    #[serde(flatten)]
    pub tenant: Tenant,
    /// Who of the caller's own users the request is for, as the caller calls him.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Labels of the key and, beside them, of the request; copied to each ledger row.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The guardrail policy that applies.
    pub policy: String,
    /// Providers that may be called; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub providers: Option<Vec<String>>,
}
