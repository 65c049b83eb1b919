-- Whose a call is: organisations, their teams, the keys that are issued to them, and who changed what.

ALTER TABLE attempts
    ADD COLUMN organisation text,
    ADD COLUMN team         text,
    -- As the caller calls its own user.
    ADD COLUMN end_user     text;
ALTER TABLE requests
    ADD COLUMN organisation text,
    ADD COLUMN team         text,
    ADD COLUMN end_user     text;

CREATE TABLE organisations (
    name       text        PRIMARY KEY,
    -- What all its keys may do.
    rights     jsonb       NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE teams (
    organisation text        NOT NULL REFERENCES organisations,
    name         text        NOT NULL,
    -- What all its keys may do.
    rights       jsonb       NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organisation, name)
);

CREATE TABLE keys (
    key_id       uuid        PRIMARY KEY,
    name         text        NOT NULL,
    organisation text        REFERENCES organisations,
    team         text,
    rights       jsonb       NOT NULL,
    expires_at   timestamptz,
    disabled_at  timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    created_by   text        NOT NULL,
    revision     bigint      NOT NULL DEFAULT 1,
    -- What every ingress has been told of.
    published    bigint      NOT NULL DEFAULT 0,
    FOREIGN KEY (organisation, team) REFERENCES teams,
    CONSTRAINT keys_team CHECK (team IS NULL OR organisation IS NOT NULL)
);
COMMENT ON TABLE keys IS 'Keys that were issued, without their secrets. Those of the configuration are not among them.';
CREATE UNIQUE INDEX keys_by_name ON keys (coalesce(organisation, ''), coalesce(team, ''), name);
CREATE INDEX keys_to_publish ON keys (key_id) WHERE published < revision;

CREATE TABLE key_secrets (
    -- SHA-256 of the whole secret.
    sha256     bytea       PRIMARY KEY,
    key_id     uuid        NOT NULL REFERENCES keys,
    -- Its last characters, by which its holder knows it again.
    ending     text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Until when it is accepted, after another took its place.
    until      timestamptz,
    CONSTRAINT key_secrets_sha256 CHECK (octet_length(sha256) = 32)
);
CREATE INDEX key_secrets_by_key ON key_secrets (key_id);

-- Who changed what. Each row's hash covers the row and the hash of the one before, so that none can be changed, left out or
-- put in without a trace.
CREATE TABLE audit_events (
    sequence bigint      PRIMARY KEY,
    at       timestamptz NOT NULL,
    -- The key that was shown, by name and id.
    actor    text        NOT NULL,
    actor_id uuid        NOT NULL,
    action   text        NOT NULL,
    subject  text        NOT NULL,
    -- What was asked for. Never a secret.
    detail   jsonb       NOT NULL,
    previous bytea       NOT NULL,
    hash     bytea       NOT NULL,
    -- Of a change that was made elsewhere and is told of by an event, perhaps twice.
    request_id uuid      UNIQUE,
    CONSTRAINT audit_events_hash CHECK (octet_length(previous) = 32 AND octet_length(hash) = 32)
);
COMMENT ON TABLE audit_events IS
    'Who changed what, in a chain of hashes; `tollgate audit verify` checks it.';
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

CREATE OR REPLACE VIEW ledger AS
SELECT
    a.attempt_id, a.request_id, a.generation, a.retry, a.provider, a.provider_model, a.model, a.key_id, a.key_name,
    a.tags, a.dialect, a.stream, a.started_at, a.deadline_at, b.abandoned_at,
    CASE WHEN c.attempt_id IS NULL THEN a.state ELSE 'settled' END AS state,
    coalesce(a.outcome, c.outcome) AS outcome,
    coalesce(a.error_code, c.error_code) AS error_code,
    coalesce(a.provider_status, c.provider_status) AS provider_status,
    coalesce(a.served_model, c.served_model) AS served_model,
    a.input_tokens + coalesce(c.input_tokens_delta, 0) AS input_tokens,
    a.cached_input_tokens + coalesce(c.cached_input_tokens_delta, 0) AS cached_input_tokens,
    a.output_tokens + coalesce(c.output_tokens_delta, 0) AS output_tokens,
    a.reasoning_tokens + coalesce(c.reasoning_tokens_delta, 0) AS reasoning_tokens,
    coalesce(c.usage_source, a.usage_source) AS usage_source,
    CASE WHEN c.attempt_id IS NULL THEN a.price_id ELSE c.price_id END AS price_id,
    CASE WHEN c.attempt_id IS NULL THEN a.cost_usd
         ELSE coalesce(a.cost_usd, 0) + c.cost_usd_delta END AS cost_usd,
    coalesce(a.ended_at, c.ended_at) AS ended_at,
    coalesce(a.first_token_ms, c.first_token_ms) AS first_token_ms,
    c.attempt_id IS NOT NULL AS corrected,
    (a.started_at AT TIME ZONE 'UTC')::date AS day,
    a.operation,
    a.cache_write_input_tokens + coalesce(c.cache_write_input_tokens_delta, 0) AS cache_write_input_tokens,
    a.cache_write_1h_input_tokens + coalesce(c.cache_write_1h_input_tokens_delta, 0) AS cache_write_1h_input_tokens,
    a.audio_input_tokens + coalesce(c.audio_input_tokens_delta, 0) AS audio_input_tokens,
    a.audio_output_tokens + coalesce(c.audio_output_tokens_delta, 0) AS audio_output_tokens,
    a.web_searches + coalesce(c.web_searches_delta, 0) AS web_searches,
    a.hedge,
    CASE WHEN c.attempt_id IS NULL THEN a.cost_breakdown ELSE c.cost_breakdown END AS cost_breakdown,
    a.organisation,
    a.team,
    a.end_user
FROM attempts a
LEFT JOIN attempt_corrections c ON c.attempt_id = a.attempt_id
LEFT JOIN abandonments b ON b.attempt_id = a.attempt_id;

CREATE VIEW cost_by_organisation AS
SELECT
    day, organisation,
    count(*)                                   AS calls,
    coalesce(sum(input_tokens), 0)             AS input_tokens,
    coalesce(sum(output_tokens), 0)            AS output_tokens,
    coalesce(sum(cost_usd), 0)                 AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL)   AS unpriced_calls,
    count(*) FILTER (WHERE state = 'orphaned') AS orphaned_calls
FROM ledger
WHERE state <> 'open'
GROUP BY 1, 2;
COMMENT ON VIEW cost_by_organisation IS
    'Completed calls, tokens and cost by UTC day and organisation. cost_usd is without the unpriced calls; orphaned calls count with their estimates.';

CREATE VIEW cost_by_team AS
SELECT
    day, organisation, team,
    count(*)                                   AS calls,
    coalesce(sum(input_tokens), 0)             AS input_tokens,
    coalesce(sum(output_tokens), 0)            AS output_tokens,
    coalesce(sum(cost_usd), 0)                 AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL)   AS unpriced_calls,
    count(*) FILTER (WHERE state = 'orphaned') AS orphaned_calls
FROM ledger
WHERE state <> 'open'
GROUP BY 1, 2, 3;
COMMENT ON VIEW cost_by_team IS
    'Completed calls, tokens and cost by UTC day and team. cost_usd is without the unpriced calls; orphaned calls count with their estimates.';

CREATE VIEW cost_by_user AS
SELECT
    day, organisation, team, end_user,
    count(*)                                   AS calls,
    coalesce(sum(input_tokens), 0)             AS input_tokens,
    coalesce(sum(output_tokens), 0)            AS output_tokens,
    coalesce(sum(cost_usd), 0)                 AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL)   AS unpriced_calls,
    count(*) FILTER (WHERE state = 'orphaned') AS orphaned_calls
FROM ledger
WHERE state <> 'open' AND end_user IS NOT NULL
GROUP BY 1, 2, 3, 4;
COMMENT ON VIEW cost_by_user IS
    'Completed calls, tokens and cost by UTC day and the callers'' own users. cost_usd is without the unpriced calls; orphaned calls count with their estimates.';
