//! Reasoning that only its maker can read, and how it travels.
//!
//! OpenAI binds `encrypted_content` to the id of its item and refuses it under another, so the model's signature of such
//! reasoning holds both: `responses:{id}:{content}`. No other provider's signatures look like that; those are told apart
//! when reasoning goes back, and left out.
//!
//! In an answer to a client of this dialect, what other providers sealed travels as `encrypted_content` with a mark in
//! front, because clients may drop the item's id. The mark also says what kind of seal it was.

use serde_json::json;

const OWN: &str = "responses:";
const SIGNATURE: &str = "tollgate.signature:";
const REDACTED: &str = "tollgate.redacted:";
const CALL: &str = "tollgate.call:";

/// What `encrypted_content` holds.
pub(super) enum Sealed {
    /// The signature of the item's text.
    Signature(String),
    /// A whole block of reasoning.
    Redacted(String),
    /// The reasoning behind a call.
    Call { call_id: String, signature: String },
}

impl Sealed {
    /// As `encrypted_content`.
    pub(super) fn content(&self) -> String {
        match self {
            Self::Signature(signature) => format!("{SIGNATURE}{signature}"),
            Self::Redacted(data) => format!("{REDACTED}{data}"),
            Self::Call { call_id, signature } => format!("{CALL}{}", json!([call_id, signature])),
        }
    }

    /// What an item of reasoning with this id holds.
    pub(super) fn read(id: &str, content: &str) -> Self {
        if let Some(signature) = content.strip_prefix(SIGNATURE) {
            return Self::Signature(signature.to_owned());
        }
        if let Some(data) = content.strip_prefix(REDACTED) {
            return Self::Redacted(data.to_owned());
        }
        let call = content
            .strip_prefix(CALL)
            .and_then(|pair| serde_json::from_str(pair).ok());
        match call {
            Some((call_id, signature)) => Self::Call { call_id, signature },
            None => Self::Signature(format!("{OWN}{id}:{content}")),
        }
    }
}

/// The item's id, which may be empty, and its `encrypted_content`, of a signature that was made in this dialect.
pub(super) fn own(signature: &str) -> Option<(&str, &str)> {
    signature.strip_prefix(OWN)?.split_once(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_of_others_come_back_as_they_were_and_our_own_keeps_its_id() {
        for signature in ["EqQB+/=", "", "responses:rs_1:gAAA", "tollgate.redacted:x"] {
            let content = Sealed::Signature(signature.to_owned()).content();
            assert!(matches!(Sealed::read("rs_9", &content), Sealed::Signature(back) if back == signature));
        }
        let content = Sealed::Redacted("d".to_owned()).content();
        assert!(matches!(Sealed::read("", &content), Sealed::Redacted(data) if data == "d"));
        let call = Sealed::Call {
            call_id: "c:\"1".to_owned(),
            signature: "s:]".to_owned(),
        };
        assert!(matches!(Sealed::read("", &call.content()),
            Sealed::Call { call_id, signature } if call_id == "c:\"1" && signature == "s:]"));
        let Sealed::Signature(signature) = Sealed::read("rs_1", "gAAA:B") else {
            panic!("a signature")
        };
        assert_eq!(own(&signature), Some(("rs_1", "gAAA:B")));
        assert_eq!(own("EqQB"), None);
    }
}
