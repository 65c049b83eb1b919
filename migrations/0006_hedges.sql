-- Second attempts of requests whose first was slow.

ALTER TABLE attempts ADD COLUMN hedge boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN attempts.hedge IS 'Made because another attempt of the same request was slow.';

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
    a.hedge
FROM attempts a
LEFT JOIN attempt_corrections c ON c.attempt_id = a.attempt_id
LEFT JOIN abandonments b ON b.attempt_id = a.attempt_id;

CREATE VIEW cost_of_hedges AS
WITH hedged AS (
    SELECT DISTINCT request_id FROM ledger WHERE hedge
), calls AS (
    SELECT
        l.day, l.model, l.request_id,
        count(*)                                               AS calls,
        count(*) FILTER (WHERE l.hedge)                        AS hedges,
        bool_or(l.hedge AND l.outcome = 'answered')            AS won,
        sum(l.cost_usd)                                        AS cost_usd,
        -- What the request would have cost alone is what its cheapest whole answer did.
        min(l.cost_usd) FILTER (WHERE l.outcome = 'answered')  AS answer_usd
    FROM ledger l JOIN hedged h USING (request_id)
    WHERE l.state <> 'open'
    GROUP BY 1, 2, 3
)
SELECT
    day, model,
    count(*)                            AS hedged_requests,
    sum(hedges)                         AS hedges,
    count(*) FILTER (WHERE won)         AS answered_by_hedge,
    sum(cost_usd)                       AS cost_usd,
    sum(cost_usd - coalesce(answer_usd, 0)) AS extra_usd
FROM calls
GROUP BY 1, 2;
COMMENT ON VIEW cost_of_hedges IS
    'Requests that were hedged, by day and model: how many a hedge answered, what all their calls cost, and how much of that was beside the answer.';
