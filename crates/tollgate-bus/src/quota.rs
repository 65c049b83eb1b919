//! How ingress asks audit for slices of limits: a question over NATS, which any replica of audit answers.

use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures::StreamExt;
use prost::Message as _;
use tollgate_proto::v1;

use crate::{Error, subject};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks. Cheap to clone.
#[derive(Clone)]
pub struct Quota {
    client: Client,
}

impl Quota {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// The answer of audit; none when nobody answers, or the database does not.
    pub async fn ask(&self, question: &v1::QuotaQuestion) -> Option<v1::QuotaAnswer> {
        let asked = self.client.request(subject::QUOTA, question.encode_to_vec().into());
        let message = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?;
        let answer = v1::QuotaAnswer::decode(message.payload).ok()?;
        let whole = !answer.away && answer.leases.len() == question.leases.len();
        whole.then_some(answer)
    }
}

/// Questions, for audit to answer.
pub struct QuotaQuestions {
    client: Client,
    questions: Subscriber,
}

/// One of them.
pub struct QuotaQuestion {
    pub asked: v1::QuotaQuestion,
    client: Client,
    reply: async_nats::Subject,
}

impl QuotaQuestions {
    pub(crate) async fn open(client: Client) -> Result<Self, Error> {
        let subscribed = client
            .queue_subscribe(subject::QUOTA, subject::LEDGER_CONSUMER.to_owned())
            .await;
        let questions = subscribed.map_err(|source| Error::Subscribe {
            subject: subject::QUOTA.to_owned(),
            source: source.into(),
        })?;
        Ok(Self { client, questions })
    }

    /// The next one that can be read. `None` when the subscription has ended.
    pub async fn next(&mut self) -> Option<QuotaQuestion> {
        loop {
            let message = self.questions.next().await?;
            if let (Ok(asked), Some(reply)) = (v1::QuotaQuestion::decode(message.payload), message.reply) {
                return Some(QuotaQuestion {
                    asked,
                    client: self.client.clone(),
                    reply,
                });
            }
        }
    }
}

impl QuotaQuestion {
    /// Sends the answer to whoever asked.
    pub async fn answer(self, answer: &v1::QuotaAnswer) {
        let sent = self.client.publish(self.reply, answer.encode_to_vec().into()).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}
