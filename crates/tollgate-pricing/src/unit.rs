//! What is counted, and the terms on which it was served.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text that is no name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not known here")]
pub struct UnknownName(pub(crate) String);

macro_rules! named {
    ($(#[$doc:meta])* $kind:ident { $($(#[$about:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum $kind {
            $($(#[$about])* $name,)*
        }

        impl $kind {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in sheets, reports and breakdowns.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        impl FromStr for $kind {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                let mut all = Self::ALL.iter().copied();
                all.find(|one| one.as_str() == text).ok_or_else(|| UnknownName(text.to_owned()))
            }
        }

        impl TryFrom<String> for $kind {
            type Error = UnknownName;

            fn try_from(text: String) -> Result<Self, UnknownName> {
                text.parse()
            }
        }

        impl From<$kind> for &'static str {
            fn from(one: $kind) -> Self {
                one.as_str()
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named! {
    /// A thing that a provider bills. Of tokens, each belongs to one unit only.
    Unit {
        /// Tokens of the prompt that are in no other unit.
        Input = "input",
        /// Read from the provider's cache.
        CachedInput = "cached_input",
        /// Written to the cache for minutes.
        CacheWrite = "cache_write",
        CacheWrite1h = "cache_write_1h",
        CacheWrite12h = "cache_write_12h",
        AudioInput = "audio_input",
        CachedAudioInput = "cached_audio_input",
        ImageInput = "image_input",
        VideoInput = "video_input",
        /// Tokens of the answer that are in no other unit.
        Output = "output",
        Reasoning = "reasoning",
        AudioOutput = "audio_output",
        ImageOutput = "image_output",
        VideoOutput = "video_output",
        /// Tokens of what an answer quotes.
        Citation = "citation",
        /// Here and below not tokens but times.
        WebSearch = "web_search",
        /// With a small context.
        WebSearchLow = "web_search_low",
        /// With a large one.
        WebSearchHigh = "web_search_high",
        MapsSearch = "maps_search",
        FileSearch = "file_search",
        CodeSession = "code_session",
        Request = "request",
        Query = "query",
    }
}

impl Unit {
    /// Whether it is priced by the million.
    #[must_use]
    pub const fn is_token(self) -> bool {
        (self as u8) <= (Self::Citation as u8)
    }

    /// The unit whose rate holds for one that has none of its own.
    #[must_use]
    pub const fn stand_in(self) -> Option<Self> {
        match self {
            Self::CachedInput | Self::CacheWrite | Self::AudioInput | Self::ImageInput | Self::VideoInput => {
                Some(Self::Input)
            }
            Self::CachedAudioInput => Some(Self::CachedInput),
            Self::CacheWrite1h | Self::CacheWrite12h => Some(Self::CacheWrite),
            Self::Reasoning | Self::AudioOutput | Self::ImageOutput | Self::VideoOutput => Some(Self::Output),
            Self::WebSearchLow | Self::WebSearchHigh => Some(Self::WebSearch),
            Self::Input
            | Self::Output
            | Self::Citation
            | Self::WebSearch
            | Self::MapsSearch
            | Self::FileSearch
            | Self::CodeSession
            | Self::Request
            | Self::Query => None,
        }
    }
}

named! {
    /// The terms on which a call was served.
    Tier {
        Standard = "standard",
        Batch = "batch",
        Flex = "flex",
        Priority = "priority",
        Balanced = "balanced",
        Ultrafast = "ultrafast",
    }
}

impl Tier {
    /// What a provider calls it; `None` for a name that nobody gave a price.
    #[must_use]
    pub fn of_provider(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "standard" | "default" | "auto" | "on_demand" | "provisioned_throughput" | "scale" => Self::Standard,
            "batch" | "on_demand_batch" => Self::Batch,
            "flex" | "on_demand_flex" => Self::Flex,
            "priority" | "fast" | "on_demand_priority" => Self::Priority,
            "balanced" => Self::Balanced,
            "ultrafast" => Self::Ultrafast,
            _ => return None,
        })
    }
}
