//! Durable requests: stored, tried until they end, ended once, fetched by id; and paid for once, whatever is killed.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tollgate_proto::v1::{
    self, CompleteRequest, GetJobRequest, JobPriority, JobState, ListJobsRequest, SubmitJobRequest, UpdateKeyRequest,
    job, jobs_client::JobsClient, keys_client::KeysClient, submit_job_request,
};
use tollgate_simulator::Script;
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt;

use crate::{
    harness::{KEY, Options, Stack, bearer, channel, chat, read},
    matrix,
};

/// The lease of a dispatcher that was killed runs out after half a minute.
const LEASE: Duration = Duration::from_secs(60);

fn job(model: &str, text: &str, idempotency_key: &str) -> SubmitJobRequest {
    let message = v1::Message {
        role: v1::Role::User.into(),
        content: vec![v1::Part {
            part: Some(v1::part::Part::Text(text.to_owned())),
            ..v1::Part::default()
        }],
        ..v1::Message::default()
    };
    let request = CompleteRequest {
        model: model.to_owned(),
        messages: vec![message],
        ..CompleteRequest::default()
    };
    SubmitJobRequest {
        request: Some(submit_job_request::Request::Complete(request)),
        idempotency_key: idempotency_key.to_owned(),
        ..SubmitJobRequest::default()
    }
}

async fn client(stack: &Stack) -> JobsClient<Channel> {
    JobsClient::new(channel(&stack.grpc).await)
}

/// The job once it has ended.
async fn ended(client: &mut JobsClient<Channel>, id: &str) -> v1::Job {
    let request = bearer(GetJobRequest { id: id.to_owned() }, KEY);
    let mut changes = client.watch(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(job) = changes.message().await.unwrap() {
        last = Some(job);
    }
    last.unwrap()
}

fn text(job: &v1::Job) -> &str {
    match &job.answer {
        Some(job::Answer::Complete(answer)) => &answer.text,
        _ => panic!(
            "{:?} has no answer: {:?}",
            job.id,
            job.error.as_ref().map(|error| &error.code)
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_answered_kept_and_in_the_ledger() {
    let stack = Stack::with(Script::default()).await;
    let mut client = client(&stack).await;
    let request = SubmitJobRequest {
        priority: JobPriority::High.into(),
        tags: [("run".to_owned(), "7".to_owned())].into(),
        batch: "first".to_owned(),
        ..job("sim-mini", "hello", "")
    };
    let accepted = client.submit(bearer(request, KEY)).await.unwrap().into_inner();
    assert_eq!(accepted.state(), JobState::Waiting);
    let answered = ended(&mut client, &accepted.id).await;
    assert_eq!(
        (answered.state(), text(&answered)),
        (JobState::Answered, "You said: hello")
    );
    assert_eq!((answered.batch.as_str(), answered.tags["run"].as_str()), ("first", "7"));
    assert_eq!(answered.tags["team"], "red");
    // Fetched again, by any door, and by nobody else.
    let url = format!("{}/v1/jobs/{}", stack.http, accepted.id);
    let get = |key: &str| stack.client.get(&url).bearer_auth(key).send();
    let (status, body) = read(get(KEY).await.unwrap()).await;
    assert_eq!((status, body["state"].as_str()), (200, Some("answered")), "{body}");
    let (status, body) = read(get("tg_masked").await.unwrap()).await;
    assert_eq!((status, body["error"]["code"].as_str()), (404, Some("job_not_found")));
    let stranger = bearer(GetJobRequest { id: accepted.id }, "tg_masked");
    assert_eq!(client.get(stranger).await.err().unwrap().code(), Code::NotFound);
    stack
        .until("SELECT count(*) FROM attempts WHERE state = 'settled'", 1, LEASE)
        .await;
    assert_eq!(
        stack
            .count("SELECT count(*) FROM ledger WHERE tags->>'run' = '7'")
            .await,
        1
    );
    stack.stop().await;
}

/// A job over HTTP in each dialect that has a door, with its answer in the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_dialect_has_its_jobs() {
    let stack = Stack::start(Options::with_dialects()).await;
    let said = json!([{ "role": "user", "content": "hello" }]);
    for (url, body, answer) in [
        (
            "/v1/chat/completions",
            chat("via-anthropic", "hello"),
            "/choices/0/message/content",
        ),
        (
            "/v1/responses",
            json!({ "model": "via-gemini", "input": "hello" }),
            "/output/0/content/0/text",
        ),
        (
            "/v1/messages",
            json!({ "model": "via-bedrock", "max_tokens": 99, "messages": said }),
            "/content/0/text",
        ),
        (
            "/v1beta/models/via-anthropic:generateContent",
            json!({ "contents": [{ "parts": [{ "text": "hello" }] }] }),
            "/candidates/0/content/parts/0/text",
        ),
    ] {
        let request = json!({ "url": url, "body": body, "batch": "all" });
        let submit = stack.client.post(format!("{}/v1/jobs", stack.http)).bearer_auth(KEY);
        let (status, accepted) = read(submit.body(request.to_string()).send().await.unwrap()).await;
        assert_eq!(status, 202, "{url}: {accepted}");
        let one = format!("{}/v1/jobs/{}?wait=20", stack.http, accepted["id"].as_str().unwrap());
        let (_, done) = read(stack.client.get(one).bearer_auth(KEY).send().await.unwrap()).await;
        let found = done["response"].pointer(answer).and_then(Value::as_str);
        assert_eq!(found, Some("You said: hello"), "{url}: {done}");
    }
    let embed = json!({ "url": "/v1/embeddings", "body": { "model": "sim-embed", "input": ["a", "b"] } });
    let submit = stack.client.post(format!("{}/v1/jobs", stack.http)).bearer_auth(KEY);
    let (_, accepted) = read(submit.body(embed.to_string()).send().await.unwrap()).await;
    let one = format!("{}/v1/jobs/{}?wait=20", stack.http, accepted["id"].as_str().unwrap());
    let (_, done) = read(stack.client.get(one).bearer_auth(KEY).send().await.unwrap()).await;
    assert_eq!(done["response"]["data"].as_array().map(Vec::len), Some(2), "{done}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_job_and_is_paid_once() {
    let stack = Stack::with(Script::default()).await;
    let mut client = client(&stack).await;
    let submit = async |client: &mut JobsClient<Channel>, request, key| client.submit(bearer(request, key)).await;
    let first = submit(&mut client, job("sim-mini", "once", "a"), KEY)
        .await
        .unwrap()
        .into_inner();
    ended(&mut client, &first.id).await;
    let urgent = SubmitJobRequest {
        priority: JobPriority::High.into(),
        ..job("sim-mini", "once", "a")
    };
    let again = submit(&mut client, urgent, KEY).await.unwrap().into_inner();
    assert_eq!((&again.id, text(&again)), (&first.id, "You said: once"));
    let other = submit(&mut client, job("sim-mini", "twice", "a"), KEY)
        .await
        .err()
        .unwrap();
    assert_eq!(other.code(), Code::AlreadyExists);
    assert_eq!(other.get_details_error_info().unwrap().reason, "idempotency_conflict");
    // Another owner's key is another job.
    let theirs = submit(&mut client, job("sim-mini", "once", "a"), "tg_masked")
        .await
        .unwrap();
    assert_ne!(theirs.into_inner().id, first.id);

    let batch: Vec<_> = (0..300)
        .map(|index| job("sim-mini", &format!("b {index}"), &format!("b{index}")))
        .collect();
    let all = |client: &mut JobsClient<Channel>| {
        let mut client = client.clone();
        let request = bearer(futures::stream::iter(batch.clone()), KEY);
        async move { client.submit_batch(request).await.unwrap().into_inner() }
    };
    let (one, two) = tokio::join!(all(&mut client.clone()), all(&mut client.clone()));
    assert_eq!((one.accepted, two.accepted, one.known + two.known), (300, 300, 300));
    stack
        .until("SELECT count(*) FROM attempts WHERE state = 'settled'", 302, LEASE)
        .await;
    assert_eq!(stack.simulator.stats().calls, 302);
    let ids: BTreeSet<String> = stack.simulator.calls().into_iter().filter_map(|call| call.id).collect();
    assert_eq!(ids.len(), 302);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_its_call() {
    let stack = Stack::with(Script::default()).await;
    let mut client = client(&stack).await;
    let accepted = client
        .submit(bearer(job("sim-mini", "#sim:stall", ""), KEY))
        .await
        .unwrap()
        .into_inner();
    while stack.simulator.stats().open == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let id = accepted.id;
    let running = client.get(bearer(GetJobRequest { id: id.clone() }, KEY)).await.unwrap();
    assert_eq!(running.into_inner().state(), JobState::Running);
    let cancelled = client
        .cancel(bearer(GetJobRequest { id: id.clone() }, KEY))
        .await
        .unwrap();
    assert_eq!(cancelled.into_inner().state(), JobState::Cancelled);
    stack.provider_left(1).await;
    // It stays so, and is not tried again.
    assert_eq!(ended(&mut client, &id).await.state(), JobState::Cancelled);
    stack
        .until("SELECT count(*) FROM attempts WHERE outcome = 'cancelled'", 1, LEASE)
        .await;
    assert_eq!(stack.simulator.stats().calls, 1);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_succeed_fails_and_what_can_is_tried_again() {
    let options = Options {
        settings: vec![(
            "ingress",
            "jobs: {min_backoff: 100ms, max_backoff: 200ms, max_failed_calls: 3, deadline: 3s}",
        )],
        ..Options::default()
    };
    let stack = Stack::start(options).await;
    let mut client = client(&stack).await;
    let mut expect = async |request: SubmitJobRequest, key: &str| {
        let id = client.submit(bearer(request, key)).await.unwrap().into_inner().id;
        let mut changes = client
            .watch(bearer(GetJobRequest { id }, key))
            .await
            .unwrap()
            .into_inner();
        let mut last = None;
        while let Some(job) = changes.message().await.unwrap() {
            last = Some(job);
        }
        let last = last.unwrap();
        let code = last.error.as_ref().map(|error| error.code.clone()).unwrap_or_default();
        (last.state(), code, last.failed_calls)
    };
    assert_eq!(
        expect(job("sim-mini", "#sim:status=400", ""), KEY).await,
        (JobState::Failed, "provider_refused".to_owned(), 0)
    );
    assert_eq!(stack.simulator.stats().calls, 1);
    assert_eq!(
        expect(job("sim-mini", "#sim:status=500", ""), KEY).await,
        (JobState::Failed, "provider_error".to_owned(), 3)
    );
    assert_eq!(stack.simulator.stats().calls, 4);
    assert_eq!(
        expect(job("sim-mini", "forbidden fruit", ""), "tg_masked").await,
        (JobState::Denied, "policy_denied".to_owned(), 0)
    );
    // Nobody is there until the deadline: not one call, and the reason is told.
    assert_eq!(
        expect(job("dead", "hello", ""), KEY).await,
        (JobState::Failed, "deadline_exceeded".to_owned(), 0)
    );
    assert_eq!(stack.simulator.stats().calls, 4);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_by_their_owner_page_by_page_and_in_sql() {
    let stack = Stack::with(Script::default()).await;
    let mut client = client(&stack).await;
    for index in 0..25 {
        let text = if index % 5 == 0 { "#sim:status=400" } else { "fine" };
        let request = SubmitJobRequest {
            batch: if index < 20 { "a" } else { "b" }.to_owned(),
            ..job("sim-mini", text, &format!("k{index}"))
        };
        client.submit(bearer(request, KEY)).await.unwrap();
    }
    stack
        .until("SELECT count(*) FROM jobs WHERE state <> 'waiting'", 25, LEASE)
        .await;
    let list = async |client: &mut JobsClient<Channel>, request: ListJobsRequest, key: &str| {
        client.list(bearer(request, key)).await.map(tonic::Response::into_inner)
    };
    let mut seen = BTreeSet::new();
    let mut request = ListJobsRequest {
        batch: "a".to_owned(),
        limit: 7,
        ..ListJobsRequest::default()
    };
    let mut pages = 0;
    loop {
        let page = list(&mut client, request.clone(), KEY).await.unwrap();
        let times: Vec<u64> = page.jobs.iter().map(|job| job.submitted_unix_ms).collect();
        assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
        seen.extend(page.jobs.into_iter().map(|job| job.id));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!((seen.len(), pages), (20, 3));
    let failed = ListJobsRequest {
        state: JobState::Failed.into(),
        ..ListJobsRequest::default()
    };
    let failed = list(&mut client, failed, KEY).await.unwrap().jobs;
    assert_eq!(failed.len(), 5);
    assert!(
        failed
            .iter()
            .all(|job| job.error.as_ref().unwrap().code == "provider_refused")
    );
    assert!(
        list(&mut client, ListJobsRequest::default(), "tg_masked")
            .await
            .unwrap()
            .jobs
            .is_empty()
    );
    let forged = ListJobsRequest {
        page_token: "' OR 1=1".to_owned(),
        ..ListJobsRequest::default()
    };
    assert_eq!(
        list(&mut client, forged, KEY).await.err().unwrap().code(),
        Code::InvalidArgument
    );
    let by_batch = "SELECT count(*) FROM cost_by_batch
                    WHERE (batch, jobs, answered, not_answered, calls) IN (('a', 20, 16, 4, 20), ('b', 5, 4, 1, 5))";
    stack.until(by_batch, 2, LEASE).await;
    assert_eq!(
        stack
            .count("SELECT count(*) FROM requests WHERE state = 'answered'")
            .await,
        20
    );
    // A failed one, once more: another job, and the same one however often it is asked for.
    let retry = async |client: &mut JobsClient<Channel>, id: &str| {
        client
            .retry(bearer(GetJobRequest { id: id.to_owned() }, KEY))
            .await
            .map(tonic::Response::into_inner)
    };
    let again = retry(&mut client, &failed[0].id).await.unwrap();
    assert_ne!(again.id, failed[0].id);
    assert_eq!(retry(&mut client, &failed[0].id).await.unwrap().id, again.id);
    assert_eq!(ended(&mut client, &again.id).await.state(), JobState::Failed);
    assert_eq!(stack.simulator.stats().calls, 26);
    let answered = seen.iter().find(|id| failed.iter().all(|job| job.id != **id)).unwrap();
    assert_eq!(
        retry(&mut client, answered).await.err().unwrap().code(),
        Code::InvalidArgument
    );
    stack.stop().await;
}

/// Everything that the streams hold.
async fn streams_hold(stack: &Stack, text: &str) -> bool {
    let nats = async_nats::connect(&stack.nats_url).await.unwrap();
    let jetstream = async_nats::jetstream::new(nats);
    for name in ["TOLLGATE_JOBS", "TOLLGATE_JOB_ENDS", "OBJ_tollgate-jobs"] {
        let mut stream = jetstream.get_stream(name).await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        for sequence in 1..=last {
            if let Ok(message) = stream.get_raw_message(sequence).await
                && String::from_utf8_lossy(&message.payload).contains(text)
            {
                return true;
            }
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_job_is_erased_and_its_cost_is_not() {
    let stack = Stack::with(Script::default()).await;
    let mut client = client(&stack).await;
    let long = format!("whisper {}", "w".repeat(400 << 10));
    for (key, text) in [
        ("short", "whisper"),
        ("long", &long),
        ("bad", "whisper #sim:status=400"),
        ("worse", "whisper #sim:status=400"),
    ] {
        let job = client.submit(bearer(job("sim-mini", text, key), KEY)).await;
        ended(&mut client, &job.unwrap().into_inner().id).await;
    }
    stack
        .until("SELECT count(*) FROM jobs WHERE state <> 'waiting'", 4, LEASE)
        .await;
    assert!(streams_hold(&stack, "whisper").await);
    let delete = async |id: &str, key: &str| {
        let url = format!("{}/v1/jobs/{id}", stack.http);
        read(stack.client.delete(url).bearer_auth(key).send().await.unwrap()).await
    };
    let jobs = client.list(bearer(ListJobsRequest::default(), KEY)).await;
    for job in jobs.unwrap().into_inner().jobs {
        if job.state() == JobState::Answered {
            assert_eq!(delete(&job.id, "tg_masked").await.0, 404);
            let (status, dropped) = delete(&job.id, KEY).await;
            assert_eq!(
                (status, dropped["state"].as_str()),
                (200, Some("answered")),
                "{dropped}"
            );
            assert_eq!(delete(&job.id, KEY).await.0, 404);
        }
    }
    // Its key is spent.
    let again = client.submit(bearer(job("sim-mini", "whisper", "short"), KEY)).await;
    assert_eq!(again.err().unwrap().code(), Code::AlreadyExists);
    // The dead ones, from the terminal.
    let dead = async |args: &[&str]| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["jobs", "dead"])
            .args(args)
            .args(["--grpc", &stack.grpc])
            .env("TOLLGATE_API_KEY", KEY)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = dead(&["list"]).await;
    assert_eq!(listed.matches("provider_refused").count(), 2, "{listed}");
    let again = dead(&["retry", "--all"]).await;
    assert_eq!(again.lines().count(), 2, "{again}");
    for id in again.lines() {
        assert_eq!(ended(&mut client, id).await.state(), JobState::Failed);
    }
    stack
        .until("SELECT count(*) FROM jobs WHERE dropped_at IS NOT NULL", 4, LEASE)
        .await;
    stack
        .until(
            "SELECT count(*) FROM jobs WHERE state = 'failed' AND dropped_at IS NULL",
            2,
            LEASE,
        )
        .await;
    let ids: Vec<&str> = again.lines().collect();
    dead(&["drop", ids[0], ids[1]]).await;
    stack.until("SELECT count(*) FROM job_drops", 6, LEASE).await;
    assert_eq!(dead(&["list"]).await.lines().count(), 1);
    assert!(!streams_hold(&stack, "whisper").await, "something was left");
    stack
        .until("SELECT count(*) FROM ledger WHERE state = 'settled'", 6, LEASE)
        .await;
    assert_eq!(stack.simulator.stats().calls, 6);
    stack.stop().await;
}

/// Waits until the provider has so many calls under way.
async fn under_way(stack: &Stack, calls: u64) {
    while stack.simulator.stats().open != calls {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A client of an ingress that was killed and has started again.
async fn again(stack: &Stack) -> JobsClient<Channel> {
    loop {
        if let Ok(channel) = tonic::transport::Endpoint::from_shared(stack.grpc.clone())
            .unwrap()
            .connect()
            .await
        {
            let mut client = JobsClient::new(channel);
            let request = bearer(GetJobRequest::default(), KEY);
            if client
                .get(request)
                .await
                .is_err_and(|status| status.code() == Code::NotFound)
            {
                return client;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_owner_is_killed_goes_on_and_is_not_made_again() {
    let stack = Stack::with(Script::default()).await;
    let mut first = client(&stack).await;
    let slow = job("sim-mini", "slowly #sim:delay_ms=3000", "");
    let id = first.submit(bearer(slow, KEY)).await.unwrap().into_inner().id;
    under_way(&stack, 1).await;
    stack.roles.kill("ingress").await.unwrap();
    let mut client = again(&stack).await;
    let done = ended(&mut client, &id).await;
    assert!(text(&done).starts_with("You said: slowly"));
    stack
        .until("SELECT count(*) FROM attempts WHERE outcome = 'answered'", 1, LEASE)
        .await;
    stack
        .until("SELECT count(*) FROM jobs WHERE state = 'answered'", 1, LEASE)
        .await;
    assert_eq!(stack.simulator.stats().calls, 1);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_worker_is_killed_is_an_orphan_and_made_again() {
    let stack = Stack::with(Script::default()).await;
    let mut client = client(&stack).await;
    let slow = job("sim-mini", "slowly #sim:delay_ms=1500", "");
    let id = client.submit(bearer(slow, KEY)).await.unwrap().into_inner().id;
    under_way(&stack, 1).await;
    stack.roles.kill("worker").await.unwrap();
    assert!(text(&ended(&mut client, &id).await).starts_with("You said: slowly"));
    stack
        .until("SELECT count(*) FROM attempts WHERE outcome = 'answered'", 1, LEASE)
        .await;
    stack
        .until("SELECT count(*) FROM attempts WHERE state = 'orphaned'", 1, LEASE)
        .await;
    assert_eq!(stack.simulator.stats().calls, 2);
    stack.stop().await;
}

/// A batch under way, every role killed in its middle, and the same batch sent again: each job once.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_survives_the_death_of_every_role() {
    const JOBS: usize = 2000;
    let script = Script {
        delay_ms: 20,
        ..Script::default()
    };
    let options = Options {
        script,
        settings: vec![(
            "ingress",
            "jobs: {min_backoff: 100ms, max_backoff: 1s, concurrency: 64}",
        )],
        ..Options::default()
    };
    let stack = Stack::start(options).await;
    let batch: Vec<_> = (0..JOBS)
        .map(|index| SubmitJobRequest {
            batch: "big".to_owned(),
            ..job("sim-mini", &format!("number {index}"), &format!("n{index}"))
        })
        .collect();
    let mut stored = 0;
    let mut kills = ["ingress", "guardrail", "router", "ingress", "audit", "worker"].into_iter();
    // Each time the submitter is cut off, it sends everything again.
    while stored < JOBS as u64 {
        let mut client = again(&stack).await;
        let submit = client.submit_batch(bearer(futures::stream::iter(batch.clone()), KEY));
        let killer = async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            if let Some(role) = kills.next() {
                stack.roles.kill(role).await.unwrap();
            }
        };
        let (answer, ()) = tokio::join!(submit, killer);
        if let Ok(answer) = answer {
            stored = answer.into_inner().accepted;
        }
    }
    for role in kills {
        tokio::time::sleep(Duration::from_millis(700)).await;
        stack.roles.kill(role).await.unwrap();
    }
    let patience = Duration::from_secs(120);
    stack
        .until(
            "SELECT count(*) FROM jobs WHERE batch = 'big' AND state = 'answered'",
            JOBS as i64,
            patience,
        )
        .await;
    stack
        .until("SELECT count(*) FROM attempts WHERE state = 'open'", 0, patience)
        .await;
    assert_eq!(stack.count("SELECT count(*) FROM job_ends").await, JOBS as i64);
    // Both ends counted: every call that the provider saw is a row, none was made twice, and a job was called again only
    // when its worker was killed.
    let attempts = stack.attempts().await;
    let calls: Vec<String> = stack.simulator.calls().into_iter().filter_map(|call| call.id).collect();
    let unique: BTreeSet<&String> = calls.iter().collect();
    assert_eq!(unique.len(), calls.len());
    assert!(calls.iter().all(|id| attempts.contains_key(id)), "a call without a row");
    let twice = "SELECT count(*) FROM (SELECT FROM attempts WHERE outcome = 'answered'
                 GROUP BY request_id HAVING count(*) > 1) AS twice";
    assert_eq!(stack.count(twice).await, 0, "jobs that were answered, and paid, twice");
    let lost = attempts.values().filter(|attempt| attempt.state == "orphaned").count();
    assert!(
        attempts.len() <= JOBS + lost,
        "{} calls, {lost} of them lost",
        attempts.len()
    );
    assert!(lost <= 64, "one killed worker had {lost} calls");
    stack.stop().await;
}

/// Every door, whole and streamed: one key is one call, whichever form the answer is wanted in, also after its ingress died.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_key_is_paid_once_at_every_door() {
    let stack = Stack::start(Options::with_dialects()).await;
    let post = async |door, model: &str, text: &str, stream, key: &str| {
        let (path, body) = matrix::plain(door, model, text, stream);
        let request = stack.client.post(format!("{}{path}", stack.http)).bearer_auth(KEY);
        let response = request
            .header("idempotency-key", key)
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let mut calls = 0;
    for (door, name) in matrix::DOORS {
        for model in ["sim-mini", "via-anthropic"] {
            let key = format!("{name} {model}");
            calls += 1;
            for stream in [false, true, false] {
                let (status, body) = post(door, model, "once", stream, &key).await;
                let said = if stream {
                    matrix::streamed_text(door, &body)
                } else {
                    matrix::seen(door, &serde_json::from_str(&body).unwrap()).text
                };
                assert_eq!(
                    (status, said.as_str()),
                    (200, "You said: once"),
                    "{key} {stream}: {body}"
                );
            }
            let (status, body) = post(door, model, "something else", false, &key).await;
            assert_eq!(status, 409, "{body}");
            assert_eq!(matrix::error_code(&body).as_deref(), Some("idempotency_conflict"));
            assert_eq!(stack.simulator.stats().calls, calls, "{key}");
        }
    }
    // A failure is told, and is not kept: the next try is a new one.
    for _ in 0..2 {
        let (status, _) = post(matrix::Door::Chat, "sim-mini", "#sim:status=500", false, "failing").await;
        calls += 1;
        assert_eq!((status, stack.simulator.stats().calls), (500, calls));
    }
    // Two at once, while the first is under way: one call.
    let slow = "slow #sim:delay_ms=1500";
    let (one, two) = tokio::join!(
        post(matrix::Door::Chat, "sim-mini", slow, true, "slow"),
        post(matrix::Door::Chat, "sim-mini", slow, false, "slow")
    );
    assert_eq!((one.0, two.0, stack.simulator.stats().calls), (200, 200, calls + 1));
    // A client whose ingress dies asks again and has the answer that was under way.
    let slow = "slower #sim:delay_ms=2500";
    let killed = async {
        under_way(&stack, 1).await;
        stack.roles.kill("ingress").await.unwrap();
    };
    let (path, body) = matrix::plain(matrix::Door::Chat, "sim-mini", slow, true);
    let request = stack.client.post(format!("{}{path}", stack.http)).bearer_auth(KEY);
    let asked = request.header("idempotency-key", "dies").body(body.to_string()).send();
    let (broken, ()) = tokio::join!(asked, killed);
    assert!(broken.is_err());
    again(&stack).await;
    let (status, body) = post(matrix::Door::Chat, "sim-mini", slow, true, "dies").await;
    assert_eq!((status, stack.simulator.stats().calls), (200, calls + 2), "{body}");
    assert!(matrix::streamed_text(matrix::Door::Chat, &body).starts_with("You said: slower"));

    let mut gateway = v1::gateway_client::GatewayClient::new(channel(&stack.grpc).await);
    let ask = |text: &str| {
        let Some(submit_job_request::Request::Complete(request)) = job("sim-mini", text, "").request else {
            panic!("a chat")
        };
        let mut request = bearer(request, KEY);
        request
            .metadata_mut()
            .insert("idempotency-key", "grpc".parse().unwrap());
        request
    };
    let whole = gateway.complete_unary(ask("twice")).await.unwrap().into_inner();
    assert_eq!(whole.text, "You said: twice");
    let mut events = gateway.complete(ask("twice")).await.unwrap().into_inner();
    let mut said = String::new();
    while let Some(event) = events.message().await.unwrap() {
        if let Some(v1::complete_event::Event::Text(text)) = event.event {
            said.push_str(&text);
        }
    }
    assert_eq!(
        (said.as_str(), stack.simulator.stats().calls),
        ("You said: twice", calls + 3)
    );
    let other = gateway.complete_unary(ask("other")).await.err().unwrap();
    assert_eq!(other.code(), Code::AlreadyExists);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_tried_again_under_the_rights_that_its_key_has_now() {
    let stack = Stack::with(Script::default()).await;
    let mut client = client(&stack).await;
    let key = stack.issue(&["worker"]).await;
    // Known once it is let in.
    let begun = Instant::now();
    let submitted = loop {
        match client
            .submit(bearer(job("sim-mini", "#sim:status=400", "k"), &key))
            .await
        {
            Ok(submitted) => break submitted.into_inner(),
            Err(status) => assert!(begun.elapsed() < LEASE, "{status}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    stack
        .until("SELECT count(*) FROM jobs WHERE state <> 'waiting'", 1, LEASE)
        .await;
    let request = || {
        bearer(
            GetJobRequest {
                id: submitted.id.clone(),
            },
            &key,
        )
    };
    let narrower = UpdateKeyRequest {
        key: "worker".to_owned(),
        rights: Some(v1::Rights {
            models: Some(v1::Names {
                names: vec!["another".to_owned()],
            }),
            ..v1::Rights::default()
        }),
        ..UpdateKeyRequest::default()
    };
    let mut admin = KeysClient::new(channel(&stack.reports).await);
    admin.update(bearer(narrower, KEY)).await.unwrap();
    // Until ingress knows, the old rights hold, and the second job is the same however often it is asked for.
    while let Ok(again) = client.retry(request()).await {
        assert_ne!(again.into_inner().id, submitted.id);
        assert!(begun.elapsed() < LEASE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.retry(request()).await.err().unwrap().code(), Code::NotFound);
    stack.stop().await;
}
