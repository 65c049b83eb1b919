//! How a request's wish for reasoning is told to each kind of model.

use serde_json::{Map, Value};
use tollgate_types::chat::{ChatRequest, Effort, Message, Part, Reasoning, Role, ToolChoice};

use super::model::{Family, Model, NoThinking, Thinking};
use crate::{Refused, side::Losses};

/// The smallest budget that Claude takes.
const LEAST_BUDGET: u64 = 1024;

/// What is sent.
#[derive(Default)]
pub(crate) struct Plan {
    /// Claude's own field.
    pub(crate) thinking: Option<Value>,
    pub(crate) effort: Option<&'static str>,
    /// Whether the model was told to reason, in a way that rules out other wishes.
    pub(crate) on: bool,
}

/// `limit` is the most that the answer may have, in tokens.
pub(crate) fn plan(request: &ChatRequest, limit: u64, model: Model, losses: &mut Losses) -> Result<Plan, Refused> {
    let Some(asked) = request.reasoning else {
        return Ok(Plan::default());
    };
    if asked.is_off() {
        return off(model, losses);
    }
    let forced = matches!(request.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_)));
    if forced && model.is_claude() && !request.tools.is_empty() {
        losses.cannot("reasoning with a forced tool call")?;
        return Ok(Plan::default());
    }
    match model.thinking() {
        Thinking::Never => {
            losses.cannot("reasoning")?;
            Ok(Plan::default())
        }
        Thinking::Budget => with_budget(request, limit, &asked, losses),
        Thinking::Adaptive => Ok(Plan {
            thinking: Some(thinking("adaptive", None, &asked)),
            effort: effort(&asked).map(|effort| word(effort, model)),
            on: true,
        }),
        Thinking::Effort => {
            let effort = effort(&asked).map(|effort| word(effort, model));
            if effort.is_none() {
                losses.cannot("reasoning without an effort")?;
            }
            Ok(Plan {
                effort,
                ..Plan::default()
            })
        }
    }
}

fn off(model: Model, losses: &mut Losses) -> Result<Plan, Refused> {
    let kind = match model.no_thinking() {
        NoThinking::Unasked => return Ok(Plan::default()),
        NoThinking::Say(kind) => kind,
        NoThinking::Impossible => {
            losses.cannot("no reasoning")?;
            return Ok(Plan::default());
        }
    };
    Ok(Plan {
        thinking: Some(serde_json::json!({ "type": kind })),
        ..Plan::default()
    })
}

/// The budget must be less than the limit of the answer, of which it is a part.
fn with_budget(request: &ChatRequest, limit: u64, asked: &Reasoning, losses: &mut Losses) -> Result<Plan, Refused> {
    if !is_replayable(&request.messages) {
        // No client can help it: its dialect may have no place for signatures. So no reason to refuse, but to tell.
        losses.dropped.push("reasoning, whose last part is missing".to_owned());
        return Ok(Plan::default());
    }
    if limit <= LEAST_BUDGET {
        losses.cannot("reasoning in an answer of 1024 tokens or less")?;
        return Ok(Plan::default());
    }
    let budget = asked.as_budget().filter(|budget| *budget > 0);
    let budget = budget.unwrap_or(Effort::Medium.budget()).clamp(LEAST_BUDGET, limit - 1);
    Ok(Plan {
        thinking: Some(thinking("enabled", Some(budget), asked)),
        effort: None,
        on: true,
    })
}

fn thinking(kind: &str, budget: Option<u64>, asked: &Reasoning) -> Value {
    let mut thinking = Map::new();
    thinking.insert("type".to_owned(), kind.into());
    if let Some(budget) = budget {
        thinking.insert("budget_tokens".to_owned(), budget.into());
    }
    if let Some(shown) = asked.shown {
        let display = if shown { "summarized" } else { "omitted" };
        thinking.insert("display".to_owned(), display.into());
    }
    thinking.into()
}

fn effort(asked: &Reasoning) -> Option<Effort> {
    let named = asked.effort.filter(|effort| *effort != Effort::None);
    named.or_else(|| asked.budget_tokens.map(Effort::from_budget))
}

fn word(effort: Effort, model: Model) -> &'static str {
    match effort {
        Effort::None | Effort::Minimal | Effort::Low => "low",
        // Came with Opus 4.7; less is nearer to it than `max`.
        Effort::Xhigh if matches!(model, Model::Claude(Family::Opus | Family::Sonnet, (4, 6))) => "high",
        effort => effort.as_str(),
    }
}

/// Whether the assistant's last turn may be continued with reasoning: Claude demands that the turn in which it called
/// tools begins with the reasoning, signed, that led to the call.
fn is_replayable(messages: &[Message]) -> bool {
    let last = || {
        messages
            .iter()
            .rev()
            .skip_while(|message| message.role != Role::Assistant)
            .take_while(|message| message.role == Role::Assistant)
            .flat_map(|message| &message.content)
    };
    let called = last().any(|part| matches!(part, Part::ToolCall { .. }));
    let reasoned = last().any(|part| match part {
        Part::RedactedReasoning { .. } => true,
        Part::Reasoning { signature, .. } => signature.as_ref().is_some_and(|signature| !signature.is_empty()),
        _ => false,
    });
    reasoned || !called
}
