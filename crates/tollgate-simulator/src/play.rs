//! Plays an answer onto the connection step by step, and keeps its ticket until the last byte is handed over.
//!
//! The body stream owns the ticket. A client that leaves makes the server drop the body, and with it the ticket,
//! which then counts a hang-up with the tokens written so far.

use std::{io, time::Duration, vec};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;

use crate::count::{Outcome, Ticket};

/// How long a stalled answer is kept open for a client that does not leave.
const STALL: Duration = Duration::from_secs(60);
/// Time for bytes already handed over to leave before the connection is broken.
const FLUSH: Duration = Duration::from_millis(10);

/// One thing to do for an answer.
#[derive(Debug)]
pub(crate) enum Step {
    Wait(Duration),
    /// Bytes to send, and the answer tokens they carry.
    Send {
        bytes: Bytes,
        tokens: u64,
    },
    /// Send nothing until the client leaves or the stall is over, then break.
    Stall,
    /// Break the connection.
    Break,
}

struct Play {
    steps: vec::IntoIter<Step>,
    ticket: Ticket,
    /// The outcome once all steps are done.
    end: Outcome,
}

/// A body that plays the steps and then ends the ticket with `end`.
pub(crate) fn body(steps: Vec<Step>, ticket: Ticket, end: Outcome) -> Body {
    let play = Play {
        steps: steps.into_iter(),
        ticket,
        end,
    };
    Body::from_stream(stream::unfold(play, next))
}

async fn next(mut play: Play) -> Option<(io::Result<Bytes>, Play)> {
    loop {
        let rest = match play.steps.next()? {
            Step::Wait(time) => {
                tokio::time::sleep(time).await;
                continue;
            }
            Step::Send { bytes, tokens } => {
                play.ticket.bill_answer(tokens);
                if play.steps.as_slice().is_empty() {
                    // Before the bytes leave: a client that has them must find the call counted.
                    play.ticket.end(play.end);
                }
                return Some((Ok(bytes), play));
            }
            Step::Stall => STALL,
            Step::Break => FLUSH,
        };
        tokio::time::sleep(rest).await;
        play.ticket.end(Outcome::Cut);
        // An error in the body makes the server close the connection without ending the message.
        return Some((Err(io::ErrorKind::ConnectionAborted.into()), play));
    }
}
