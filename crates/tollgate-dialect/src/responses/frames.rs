//! Where the text is in the events of a stream.

use serde_json::Value;

use crate::text::Slot;

/// Shows each piece of text in one event to `check`, with the slot that it continues.
pub(crate) fn visit(frame: &mut Value, check: &mut dyn FnMut(Slot, &mut String)) {
    unimplemented!()
}

/// The blocks that the event says are finished, by `Slot::choice`.
pub(crate) fn finished(frame: &Value) -> Vec<u64> {
    unimplemented!()
}

/// An event that carries `text` for `slot` and nothing else. `like` is the last event that carried some for it.
pub(crate) fn with(like: &Value, slot: &Slot, text: String) -> Value {
    unimplemented!()
}
