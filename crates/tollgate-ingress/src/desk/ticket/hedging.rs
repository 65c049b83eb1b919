//! A second attempt beside the first: the first piece decides whose answer it is.

use opentelemetry::KeyValue;
use tokio::time::Instant;
use tollgate_bus::{Hop, delivery::Piece};
use tollgate_telemetry::label;
use tollgate_types::Envelope;

use super::{Event, Step, Ticket};
use crate::desk::{Answering, Way};

/// How it stands with a second attempt beside the first.
pub(super) enum Hedging {
    /// There is none, and will be none.
    Off,
    /// One is made if there is no answer by then.
    At(Instant),
    /// Nobody has claimed it yet.
    Sent,
    Open(Answering),
}

impl Ticket {
    /// A piece from a hedge, of which the first decides that it answers.
    pub(super) fn take_hedge(&mut self, piece: Option<Piece>) -> Step {
        let Hedging::Open(mut answering) = std::mem::replace(&mut self.hedging, Hedging::Off) else {
            return Step::Again;
        };
        match piece {
            Some(Piece::Frame { seq: 0, payload }) => {
                self.hedging = Hedging::Open(answering);
                self.begun_to_answer("won");
                self.frames = 1;
                return Step::Give(Event::Frame(payload));
            }
            Some(Piece::Released(used)) => {
                answering.settle(used);
                self.desk.unclaim(self.envelope.request_id, Way::Hedge);
                self.hedging = Hedging::Sent;
            }
            Some(Piece::End { used, .. }) => answering.settle(used),
            Some(Piece::Frame { .. }) | None => self.abandon(answering.attempt_id),
        }
        Step::Again
    }

    /// The first piece is here: whoever else is under way is let go.
    pub(super) fn begun_to_answer(&mut self, outcome: &'static str) {
        let (view, wait) = (&self.envelope.view, self.begun.elapsed());
        self.desk.hedges.learn(&view.model, view.stream, wait);
        let metrics = &self.desk.metrics;
        metrics
            .time_to_first_token
            .record(wait.as_secs_f64(), &self.model_label());
        if matches!(self.hedging, Hedging::Sent | Hedging::Open(_)) {
            let [model] = self.model_label();
            metrics.hedges.add(1, &[model, KeyValue::new(label::OUTCOME, outcome)]);
        }
        if outcome == "won" {
            self.promote();
        } else {
            self.desk.forget_hedge(self.envelope.request_id);
        }
        self.hedging = Hedging::Off;
    }

    /// Puts the hedge in the place of the first, if it is under way.
    pub(super) fn promote(&mut self) -> bool {
        match std::mem::replace(&mut self.hedging, Hedging::Off) {
            Hedging::Open(answering) => {
                self.desk.promote(self.envelope.request_id);
                self.line = Some(answering);
                true
            }
            other => {
                self.hedging = other;
                false
            }
        }
    }

    /// Asks a second target beside the one that is slow.
    pub(super) async fn hedge(&mut self) -> Step {
        self.hedging = Hedging::Off;
        let request_id = self.envelope.request_id;
        let Some(slow) = self.line.as_ref().map(|answering| answering.target.clone()) else {
            return Step::Again;
        };
        if !self.desk.hedges.spend(&self.envelope.view.model) {
            return Step::Again;
        }
        let Some(generation) = self.desk.next_generation(request_id, Way::Hedge) else {
            return Step::Again;
        };
        let envelope = Envelope {
            generation,
            hedged: Some(slow),
            ..self.envelope.clone()
        };
        match self.desk.bus.send(&Hop::Guard, envelope).await {
            Ok(()) => self.hedging = Hedging::Sent,
            Err(error) => tracing::debug!(%error, "a hedge was not sent"),
        }
        Step::Again
    }
}
