-- The reports: a documented interface for SQL clients and dashboards. Columns are only ever added, at the end.

CREATE VIEW ledger AS
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
    (a.started_at AT TIME ZONE 'UTC')::date AS day
FROM attempts a
LEFT JOIN attempt_corrections c ON c.attempt_id = a.attempt_id
LEFT JOIN abandonments b ON b.attempt_id = a.attempt_id;
COMMENT ON VIEW ledger IS
    'The truth about each call to a provider: attempts with their corrections applied. state open: under way, no numbers yet; orphaned: nobody saw the end, the numbers are estimates. cost_usd NULL in a completed row: no price is known. day is the UTC day of the start.';

CREATE VIEW cost_by_day AS
SELECT
    day,
    count(*)                                   AS calls,
    coalesce(sum(input_tokens), 0)             AS input_tokens,
    coalesce(sum(output_tokens), 0)            AS output_tokens,
    coalesce(sum(cost_usd), 0)                 AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL)   AS unpriced_calls,
    count(*) FILTER (WHERE state = 'orphaned') AS orphaned_calls
FROM ledger
WHERE state <> 'open'
GROUP BY 1;
COMMENT ON VIEW cost_by_day IS
    'Completed calls, tokens and cost by UTC day. cost_usd is without the unpriced calls; orphaned calls count with their estimates.';

CREATE VIEW cost_by_model AS
SELECT
    day, model,
    count(*)                                   AS calls,
    coalesce(sum(input_tokens), 0)             AS input_tokens,
    coalesce(sum(output_tokens), 0)            AS output_tokens,
    coalesce(sum(cost_usd), 0)                 AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL)   AS unpriced_calls,
    count(*) FILTER (WHERE state = 'orphaned') AS orphaned_calls
FROM ledger
WHERE state <> 'open'
GROUP BY 1, 2;
COMMENT ON VIEW cost_by_model IS
    'Completed calls, tokens and cost by UTC day and public model name. cost_usd is without the unpriced calls; orphaned calls count with their estimates.';

CREATE VIEW cost_by_provider AS
SELECT
    day, provider,
    count(*)                                   AS calls,
    coalesce(sum(input_tokens), 0)             AS input_tokens,
    coalesce(sum(output_tokens), 0)            AS output_tokens,
    coalesce(sum(cost_usd), 0)                 AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL)   AS unpriced_calls,
    count(*) FILTER (WHERE state = 'orphaned') AS orphaned_calls
FROM ledger
WHERE state <> 'open'
GROUP BY 1, 2;
COMMENT ON VIEW cost_by_provider IS
    'Completed calls, tokens and cost by UTC day and provider name. cost_usd is without the unpriced calls; orphaned calls count with their estimates.';

CREATE VIEW cost_by_key AS
SELECT
    day, key_id, key_name,
    count(*)                                   AS calls,
    coalesce(sum(input_tokens), 0)             AS input_tokens,
    coalesce(sum(output_tokens), 0)            AS output_tokens,
    coalesce(sum(cost_usd), 0)                 AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL)   AS unpriced_calls,
    count(*) FILTER (WHERE state = 'orphaned') AS orphaned_calls
FROM ledger
WHERE state <> 'open'
GROUP BY 1, 2, 3;
COMMENT ON VIEW cost_by_key IS
    'Completed calls, tokens and cost by UTC day and API key. cost_usd is without the unpriced calls; orphaned calls count with their estimates.';

CREATE VIEW cost_by_tag AS
SELECT
    day, tag.key || '=' || tag.value AS tag,
    count(*)                                   AS calls,
    coalesce(sum(input_tokens), 0)             AS input_tokens,
    coalesce(sum(output_tokens), 0)            AS output_tokens,
    coalesce(sum(cost_usd), 0)                 AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL)   AS unpriced_calls,
    count(*) FILTER (WHERE state = 'orphaned') AS orphaned_calls
FROM ledger CROSS JOIN LATERAL jsonb_each_text(tags) AS tag
WHERE state <> 'open'
GROUP BY 1, 2;
COMMENT ON VIEW cost_by_tag IS
    'Completed calls, tokens and cost by UTC day and label of the key, written name=value; a call with two labels is in two rows, one without labels in none. cost_usd is without the unpriced calls; orphaned calls count with their estimates.';
