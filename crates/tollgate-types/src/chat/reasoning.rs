//! How much the model is to reason, and how the ways to say so compare.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a request says about reasoning. Absent, the model's default holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reasoning {
    /// [`Effort::None`] turns it off. Absent with no budget either: on, the model decides how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
    /// Most tokens of reasoning; 0 turns it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<u64>,
    /// Whether the answer is to show it, where the provider leaves the choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shown: Option<bool>,
}

impl Reasoning {
    /// Whether the model is told not to reason.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.budget_tokens == Some(0) || (self.budget_tokens.is_none() && self.effort == Some(Effort::None))
    }

    /// The effort, asked for or nearest to the budget. None when the model decides.
    #[must_use]
    pub fn as_effort(&self) -> Option<Effort> {
        self.effort.or_else(|| self.budget_tokens.map(Effort::from_budget))
    }

    /// The budget in tokens, asked for or nearest to the effort. None when the model decides.
    #[must_use]
    pub fn as_budget(&self) -> Option<u64> {
        self.budget_tokens.or_else(|| self.effort.map(Effort::budget))
    }
}

/// How hard the model is to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

/// A text that names no effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected none, minimal, low, medium, high, xhigh or max")]
pub struct UnknownEffort;

impl Effort {
    /// Every effort, least first.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Minimal,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Xhigh,
        Self::Max,
    ];

    /// The name that OpenAI, Anthropic and we use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// Tokens that stand for the effort with providers that want a number. The smallest budget that any takes is 1024.
    #[must_use]
    pub const fn budget(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Minimal | Self::Low => 1024,
            Self::Medium => 2048,
            Self::High => 4096,
            Self::Xhigh => 8192,
            Self::Max => 16_384,
        }
    }

    /// The effort that a budget comes nearest to, never more than it pays for.
    #[must_use]
    pub const fn from_budget(tokens: u64) -> Self {
        match tokens {
            0 => Self::None,
            1..1024 => Self::Minimal,
            1024..2048 => Self::Low,
            2048..4096 => Self::Medium,
            _ => Self::High,
        }
    }
}

impl FromStr for Effort {
    type Err = UnknownEffort;

    fn from_str(text: &str) -> Result<Self, UnknownEffort> {
        Self::ALL
            .into_iter()
            .find(|effort| effort.as_str() == text)
            .ok_or(UnknownEffort)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efforts_and_budgets_agree_where_both_can_say_it() {
        for effort in [Effort::None, Effort::Low, Effort::Medium, Effort::High] {
            assert_eq!(Effort::from_budget(effort.budget()), effort);
            assert_eq!(effort.as_str().parse(), Ok(effort));
        }
        assert_eq!("".parse::<Effort>(), Err(UnknownEffort));
    }

    #[test]
    fn off_is_off_however_it_is_said() {
        let off = |effort, budget_tokens| {
            Reasoning {
                effort,
                budget_tokens,
                shown: None,
            }
            .is_off()
        };
        assert!(off(Some(Effort::None), None) && off(None, Some(0)));
        assert!(!off(None, None) && !off(Some(Effort::Low), None) && !off(None, Some(1024)));
    }
}
