//! What is known of a model from its id.

/// Who made a model, and which of Converse's options it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// With its family and version.
    Claude(Family, (u32, u32)),
    Nova,
    /// Another maker's model that has tools but no structured output, nor prompt caching.
    Plain,
    /// Another maker's model.
    Open,
    /// An id that names no maker: an inference profile of the account's own, an imported model.
    Unknown,
}

/// What Claude models are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Opus,
    Sonnet,
    Haiku,
    /// Fable, Mythos, and what may come: models that always reason.
    Other,
}

/// How a model is told to reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thinking {
    Never,
    /// With a budget of tokens.
    Budget,
    /// As much as it finds needed, within an effort.
    Adaptive,
    /// An effort alone.
    Effort,
}

/// How a model is told not to reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoThinking {
    /// It does not unless asked.
    Unasked,
    /// By this type of `thinking`.
    Say(&'static str),
    /// It always does.
    Impossible,
}

impl Model {
    /// Reads an id, which may be an ARN or have a region's prefix.
    pub(crate) fn of(id: &str) -> Self {
        const PLAIN: [&str; 5] = ["amazon.", "meta.", "cohere.", "ai21.", "writer."];
        const OPEN: [&str; 9] = [
            "deepseek.",
            "google.",
            "minimax.",
            "mistral.",
            "moonshot",
            "nvidia.",
            "openai.",
            "qwen.",
            "zai.",
        ];
        if let Some((_, name)) = id.split_once("anthropic.claude") {
            return Self::claude(name);
        }
        let one_of = |makers: &[&str]| makers.iter().any(|maker| names_maker(id, maker));
        if names_maker(id, "amazon.nova") {
            Self::Nova
        } else if one_of(&PLAIN) {
            Self::Plain
        } else if one_of(&OPEN) {
            Self::Open
        } else {
            Self::Unknown
        }
    }

    /// `-opus-4-6-v1`, `-3-7-sonnet-20250219-v1:0`, `-sonnet-5`.
    fn claude(name: &str) -> Self {
        if name.starts_with("-v") || name.starts_with("-instant") {
            return Self::Claude(Family::Other, (2, 0));
        }
        let words = || name.split(['-', ':']).filter(|word| !word.is_empty());
        let family = words()
            .find_map(|word| match word {
                "opus" => Some(Family::Opus),
                "sonnet" => Some(Family::Sonnet),
                "haiku" => Some(Family::Haiku),
                _ => None,
            })
            .unwrap_or(Family::Other);
        // A longer number is a date.
        let mut numbers = words()
            .skip_while(|word| !word.starts_with(|c: char| c.is_ascii_digit()))
            .map_while(|word| word.parse().ok().filter(|_| word.len() <= 2));
        let version = match numbers.next() {
            Some(major) => (major, numbers.next().unwrap_or_default()),
            None => (5, 0),
        };
        Self::Claude(family, version)
    }

    /// The version, if it is a Claude.
    pub(crate) const fn claude_version(self) -> Option<(u32, u32)> {
        match self {
            Self::Claude(_, version) => Some(version),
            _ => None,
        }
    }

    fn is_claude_since(self, version: (u32, u32)) -> bool {
        self.claude_version().is_some_and(|own| own >= version)
    }

    pub(crate) const fn is_claude(self) -> bool {
        self.claude_version().is_some()
    }

    /// Whether it takes marks of what to keep in its cache. Others would refuse the request for one.
    pub(crate) const fn caches(self) -> bool {
        matches!(self, Self::Claude(..) | Self::Nova | Self::Unknown)
    }

    /// Whether it keeps its cache for an hour when asked.
    pub(crate) fn caches_for_an_hour(self) -> bool {
        self.is_claude_since((4, 5)) || self == Self::Unknown
    }

    /// Whether it holds to a schema, in its answer and in the arguments of strict tools.
    pub(crate) fn holds_to_schemas(self) -> bool {
        self.is_claude_since((4, 5)) || matches!(self, Self::Open | Self::Unknown)
    }

    /// Whether Converse can keep it from making several calls at once.
    pub(crate) fn takes_one_call_at_a_time(self) -> bool {
        self.is_claude_since((4, 5))
    }

    /// Whether it reasons unless told not to. Such a model cannot be made to call a tool meanwhile.
    pub(crate) fn thinks_unasked(self) -> bool {
        self.is_claude_since((5, 0))
    }

    /// Whether it takes no other temperature, nor any limit of the tokens to choose from.
    pub(crate) fn has_fixed_sampling(self) -> bool {
        self.is_claude_since((4, 7))
    }

    pub(crate) fn thinking(self) -> Thinking {
        match self.claude_version() {
            None => Thinking::Effort,
            Some(version) if version < (3, 7) => Thinking::Never,
            Some(version) if version < (4, 6) => Thinking::Budget,
            Some(_) => Thinking::Adaptive,
        }
    }

    pub(crate) fn no_thinking(self) -> NoThinking {
        match self {
            Self::Claude(_, version) if version < (5, 0) => NoThinking::Unasked,
            Self::Claude(Family::Sonnet, version) if version >= (5, 5) => NoThinking::Say("between_tools"),
            Self::Claude(Family::Opus, version) if version >= (5, 5) => NoThinking::Impossible,
            Self::Claude(Family::Other, _) => NoThinking::Impossible,
            Self::Claude(..) => NoThinking::Say("disabled"),
            _ => NoThinking::Unasked,
        }
    }
}

/// Whether an id, or a part of an ARN, begins with a maker's name or has it after a region's.
fn names_maker(id: &str, maker: &str) -> bool {
    let name = id.rsplit('/').next().unwrap_or(id);
    name.starts_with(maker) || name.split_once('.').is_some_and(|(_, rest)| rest.starts_with(maker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_the_model() {
        let claude = |family, version| Model::Claude(family, version);
        for (id, model) in [
            ("anthropic.claude-v2:1", claude(Family::Other, (2, 0))),
            (
                "us.anthropic.claude-3-7-sonnet-20250219-v1:0",
                claude(Family::Sonnet, (3, 7)),
            ),
            ("anthropic.claude-3-haiku-20240307-v1:0", claude(Family::Haiku, (3, 0))),
            ("anthropic.claude-opus-4-20250514-v1:0", claude(Family::Opus, (4, 0))),
            (
                "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
                claude(Family::Sonnet, (4, 5)),
            ),
            ("anthropic.claude-opus-4-6-v1", claude(Family::Opus, (4, 6))),
            ("global.anthropic.claude-sonnet-5", claude(Family::Sonnet, (5, 0))),
            ("anthropic.claude-fable-5-1", claude(Family::Other, (5, 1))),
            ("anthropic.claude-mythos-preview", claude(Family::Other, (5, 0))),
            ("us.amazon.nova-2-lite-v1:0", Model::Nova),
            ("amazon.titan-text-premier-v1:0", Model::Plain),
            ("meta.llama3-70b-instruct-v1:0", Model::Plain),
            ("openai.gpt-oss-120b-1:0", Model::Open),
            (
                "arn:aws:bedrock:us-east-1::foundation-model/mistral.mistral-large-2402-v1:0",
                Model::Open,
            ),
            (
                "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
                Model::Unknown,
            ),
        ] {
            assert_eq!(Model::of(id), model, "{id}");
        }
    }

    #[test]
    fn each_generation_is_told_to_reason_in_its_own_way() {
        let of = |id: &str| (Model::of(id).thinking(), Model::of(id).no_thinking());
        assert_eq!(of("anthropic.claude-3-5-sonnet-20240620-v1:0").0, Thinking::Never);
        assert_eq!(
            of("anthropic.claude-sonnet-4-5"),
            (Thinking::Budget, NoThinking::Unasked)
        );
        assert_eq!(
            of("anthropic.claude-opus-4-7"),
            (Thinking::Adaptive, NoThinking::Unasked)
        );
        assert_eq!(of("anthropic.claude-opus-5").1, NoThinking::Say("disabled"));
        assert_eq!(of("anthropic.claude-sonnet-5-5").1, NoThinking::Say("between_tools"));
        assert_eq!(of("anthropic.claude-opus-5-5").1, NoThinking::Impossible);
        assert_eq!(of("anthropic.claude-fable-5").1, NoThinking::Impossible);
        assert_eq!(of("openai.gpt-oss-120b-1:0"), (Thinking::Effort, NoThinking::Unasked));
    }
}
