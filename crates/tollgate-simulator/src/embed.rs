//! Vectors: numbers that depend on the text alone, the same at every call.

use crate::ask::Ask;

/// Length of a vector when the request does not say.
const LENGTH: u64 = 8;

/// One vector for each of the texts that stand in `results`, of the length that stands in `limit`.
pub(crate) fn vectors(ask: &Ask) -> Vec<Vec<f32>> {
    let length = ask.limit.unwrap_or(LENGTH);
    ask.results.iter().map(|text| vector(text, length)).collect()
}

fn vector(text: &str, length: u64) -> Vec<f32> {
    let seed = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (0..length)
        .map(|place| {
            let mixed = seed
                .wrapping_mul(2_654_435_761)
                .wrapping_add(place as u32)
                .rotate_left(place as u32 % 31);
            (mixed % 2000) as f32 / 1000.0 - 1.0
        })
        .collect()
}
