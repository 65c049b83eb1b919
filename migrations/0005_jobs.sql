-- The durable lane: one row for each job that was accepted, one for each that ended, and what they cost together.

CREATE TABLE job_submissions (
    job_id       uuid        PRIMARY KEY,
    key_id       uuid        NOT NULL,
    key_name     text        NOT NULL,
    tags         jsonb       NOT NULL,
    batch        text,
    priority     text        NOT NULL,
    model        text        NOT NULL,
    dialect      text        NOT NULL,
    operation    text        NOT NULL,
    submitted_at timestamptz NOT NULL,
    not_before   timestamptz,
    deadline_at  timestamptz NOT NULL,
    CONSTRAINT job_submissions_tags CHECK (jsonb_typeof(tags) = 'object'),
    CONSTRAINT job_submissions_priority CHECK (priority IN ('low', 'normal', 'high'))
);
COMMENT ON TABLE job_submissions IS 'One row for each accepted job. Read the view jobs instead: it says how each ended.';
CREATE INDEX job_submissions_by_key ON job_submissions (key_id, submitted_at DESC, job_id DESC);
CREATE INDEX job_submissions_by_batch ON job_submissions (batch) WHERE batch IS NOT NULL;

CREATE TABLE job_ends (
    job_id       uuid        PRIMARY KEY,
    state        text        NOT NULL,
    error_code   text,
    failed_calls bigint      NOT NULL,
    ended_at     timestamptz NOT NULL,
    CONSTRAINT job_ends_state CHECK (state IN ('answered', 'denied', 'failed', 'cancelled')),
    CONSTRAINT job_ends_error CHECK ((state = 'answered') = (error_code IS NULL)),
    CONSTRAINT job_ends_failed_calls CHECK (failed_calls >= 0)
);
COMMENT ON TABLE job_ends IS 'One row for each job that ended, the only end it has.';

CREATE TRIGGER job_submissions_append_only BEFORE UPDATE OR DELETE ON job_submissions
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER job_submissions_no_truncate BEFORE TRUNCATE ON job_submissions
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER job_ends_append_only BEFORE UPDATE OR DELETE ON job_ends
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER job_ends_no_truncate BEFORE TRUNCATE ON job_ends
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

CREATE VIEW jobs AS
SELECT
    s.job_id, s.key_id, s.key_name, s.tags, s.batch, s.priority, s.model, s.dialect, s.operation, s.submitted_at,
    s.not_before, s.deadline_at, coalesce(e.state, 'waiting') AS state, e.error_code,
    coalesce(e.failed_calls, 0) AS failed_calls, e.ended_at
FROM job_submissions s
LEFT JOIN job_ends e ON e.job_id = s.job_id;
COMMENT ON VIEW jobs IS
    'Accepted jobs and how they ended; waiting until then. The calls of a job are the rows of ledger whose request_id is its job_id.';

CREATE VIEW cost_by_batch AS
SELECT
    j.batch, j.key_id, j.key_name,
    count(*)                                                AS jobs,
    count(*) FILTER (WHERE j.state = 'answered')            AS answered,
    count(*) FILTER (WHERE j.state = 'waiting')             AS waiting,
    count(*) FILTER (WHERE j.state NOT IN ('answered', 'waiting')) AS not_answered,
    coalesce(sum(c.calls), 0)                               AS calls,
    coalesce(sum(c.input_tokens), 0)                        AS input_tokens,
    coalesce(sum(c.output_tokens), 0)                       AS output_tokens,
    coalesce(sum(c.cost_usd), 0)                            AS cost_usd,
    coalesce(sum(c.unpriced_calls), 0)                      AS unpriced_calls
FROM jobs j
CROSS JOIN LATERAL (
    SELECT count(*) AS calls, sum(l.input_tokens) AS input_tokens, sum(l.output_tokens) AS output_tokens,
           sum(l.cost_usd) AS cost_usd, count(*) FILTER (WHERE l.cost_usd IS NULL) AS unpriced_calls
    FROM ledger l WHERE l.request_id = j.job_id AND l.state <> 'open'
) c
WHERE j.batch IS NOT NULL
GROUP BY 1, 2, 3;
COMMENT ON VIEW cost_by_batch IS
    'Jobs, completed calls, tokens and cost by batch and key. cost_usd is without the unpriced calls.';
