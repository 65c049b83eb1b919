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

/// A webhook may take its receiver's time.
const WEBHOOK_PATIENCE: Duration = Duration::from_secs(60);

/// How the telling of a notice went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Delivered,
    /// To be tried again.
    Failed,
    /// Nobody wants it.
    Gone,
}

/// Has webhooks sent. Cheap to clone.
#[derive(Clone)]
pub struct Notices {
    client: Client,
}

impl Notices {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Has any ingress send this body to this address, once.
    pub async fn tell(&self, id: &str, address: &str, body: &str) -> Told {
        let wanted = v1::SendWebhook {
            id: id.to_owned(),
            address: address.to_owned(),
            body: body.to_owned(),
        };
        let request = async_nats::Request::new()
            .payload(wanted.encode_to_vec().into())
            .timeout(Some(WEBHOOK_PATIENCE));
        let Ok(message) = self.client.send_request(subject::NOTICE, request).await else {
            return Told::Failed;
        };
        match v1::WebhookSent::decode(message.payload).map(|sent| sent.outcome()) {
            Ok(v1::webhook_sent::Outcome::Delivered) => Told::Delivered,
            Ok(v1::webhook_sent::Outcome::Gone) => Told::Gone,
            _ => Told::Failed,
        }
    }
}

/// Webhooks that are to be sent, for an ingress.
pub struct NoticesToSend {
    client: Client,
    wanted: Subscriber,
}

/// One of them.
pub struct NoticeToSend {
    pub wanted: v1::SendWebhook,
    client: Client,
    reply: async_nats::Subject,
}

impl NoticesToSend {
    pub(crate) async fn open(client: Client) -> Result<Self, Error> {
        let subscribed = client
            .queue_subscribe(subject::NOTICE, subject::NOTICE_QUEUE.to_owned())
            .await;
        let wanted = subscribed.map_err(|source| Error::Subscribe {
            subject: subject::NOTICE.to_owned(),
            source: source.into(),
        })?;
        Ok(Self { client, wanted })
    }

    /// The next one that can be read. `None` when the subscription has ended.
    pub async fn next(&mut self) -> Option<NoticeToSend> {
        loop {
            let message = self.wanted.next().await?;
            if let (Ok(wanted), Some(reply)) = (v1::SendWebhook::decode(message.payload), message.reply) {
                return Some(NoticeToSend {
                    wanted,
                    client: self.client.clone(),
                    reply,
                });
            }
        }
    }
}

impl NoticeToSend {
    /// Says how it went.
    pub async fn sent(self, told: Told) {
        let outcome = match told {
            Told::Delivered => v1::webhook_sent::Outcome::Delivered,
            Told::Failed => v1::webhook_sent::Outcome::Failed,
            Told::Gone => v1::webhook_sent::Outcome::Gone,
        };
        let answer = v1::WebhookSent {
            outcome: outcome.into(),
        };
        if let Err(error) = self.client.publish(self.reply, answer.encode_to_vec().into()).await {
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}
