-- A month of calls, made in the database: how large it is, how long the reports take, making its sums anew, and dropping it.
--
--     cargo run --release -- up --simulate --exec sh -c 'psql "$DATABASE_URL" -v rows=10000000 -f bench/ledger.sql'
--
-- Rows are of 40 keys of 8 teams, 12 models and 5,000 users, with a breakdown and two tags each, as the ledger keeps them. One request in
-- 50 is called for twice, one call in 1,000 has no price, and of one in 1,000 nobody saw the end.
\set ON_ERROR_STOP on
\timing on
SET client_min_messages = warning;
SELECT ledger_make_partitions(now() + interval '2 months') AS partitions_made;
SELECT max(began) AS month, max(ends) AS after FROM ledger_partitions \gset
SELECT name AS partition FROM ledger_partitions ORDER BY ends DESC LIMIT 1 \gset

\echo == :rows calls are made, without their sums
ALTER TABLE attempts DISABLE TRIGGER usage_of_new_attempts;
ALTER TABLE attempts DISABLE TRIGGER usage_parts_of_new_attempts;
ALTER TABLE attempts DISABLE TRIGGER usage_users_of_new_attempts;
INSERT INTO attempts (
    attempt_id, request_id, generation, retry, provider, provider_model, model, key_id, key_name, tags, dialect, operation,
    stream, started_at, deadline_at, estimated_input_tokens, max_output_tokens, state, outcome, provider_status, served_model,
    input_tokens, cached_input_tokens, cache_write_input_tokens, cache_write_1h_input_tokens, audio_input_tokens,
    output_tokens, reasoning_tokens, audio_output_tokens, web_searches, usage_source, cost_usd, cost_breakdown, ended_at,
    first_token_ms, hedge, organisation, team, end_user
)
SELECT
    (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008' || lpad(to_hex(n), 15, '0'))::uuid,
    -- Spread as random ids are, and the same for both calls of one request.
    md5((n - again::int)::text)::uuid, 0, again::int, 'provider-' || n % 3, 'model-' || n % 12, 'model-' || (n - again::int) % 12,
    ('00000000-0000-4000-8000-' || lpad((n % 40)::text, 12, '0'))::uuid, 'key-' || n % 40,
    jsonb_build_object('app', 'app-' || n % 20, 'env', CASE WHEN n % 4 = 0 THEN 'test' ELSE 'prod' END), 'openai_chat', 'chat',
    n % 2 = 0, at, at + interval '10 minutes', 500, 1000, CASE WHEN orphan THEN 'orphaned' ELSE 'settled' END,
    CASE WHEN NOT orphan THEN CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'answered' END END, CASE WHEN NOT orphan THEN 200 END,
    CASE WHEN NOT orphan THEN 'model-' || n % 12 END, 500 + n % 1000, 100, 0, 0, 0, 50 + n % 500, 0, 0, 0,
    CASE WHEN orphan THEN 'estimated' ELSE 'provider' END,
    CASE WHEN NOT unpriced THEN (1000 + n % 7919) * 0.000000750 END,
    CASE WHEN NOT unpriced THEN
        '{"parts": [["input", 900, "0.75", "0.000675"], ["cached_input", 100, "0.075", "0.0000075"], ["output", 300, "4.5", "0.00135"]]}'::jsonb
    END,
    CASE WHEN NOT orphan THEN at + interval '2 seconds' END, CASE WHEN NOT orphan THEN 300 END, false, 'org-' || n % 2,
    'team-' || n % 8, 'user-' || n % 5000
FROM (
    SELECT
        n, n % 50 = 1 AS again, n % 1000 = 7 AS orphan, n % 1000 = 13 AS unpriced,
        :'month'::timestamptz + (:'after'::timestamptz - :'month'::timestamptz) * (n::float8 / :rows) AS at
    FROM generate_series(0, :rows - 1) AS n
) AS calls;
ALTER TABLE attempts ENABLE TRIGGER usage_of_new_attempts;
ALTER TABLE attempts ENABLE TRIGGER usage_parts_of_new_attempts;
ALTER TABLE attempts ENABLE TRIGGER usage_users_of_new_attempts;
ANALYZE attempts;
SELECT
    pg_size_pretty(pg_total_relation_size(:'partition')) AS size,
    round(pg_total_relation_size(:'partition')::numeric / :rows) AS bytes_a_call;

\echo == the sums of the month, from nothing
SELECT usage_rebuild(:'month', :'after');
ANALYZE usage_slots;
ANALYZE usage_tags;
ANALYZE usage_parts;
ANALYZE usage_users;
SELECT count(*) AS slots, sum(calls) AS calls, sum(cost_usd) AS usd, pg_size_pretty(pg_total_relation_size('usage_slots')) AS size
FROM usage_slots WHERE slot >= :'month';
\echo == the same from the calls
SELECT count(*) AS calls, sum(cost_usd) AS usd FROM attempts WHERE started_at >= :'month';

\echo == the reports of the month
SELECT count(*) AS by_day FROM cost_by_day WHERE day >= :'month'::date;
SELECT count(*) AS by_hour FROM cost_by_hour WHERE hour >= :'month';
SELECT count(*) AS by_model FROM cost_by_model WHERE day >= :'month'::date;
SELECT count(*) AS by_provider FROM cost_by_provider WHERE day >= :'month'::date;
SELECT count(*) AS by_region FROM cost_by_region WHERE day >= :'month'::date;
SELECT count(*) AS by_organisation FROM cost_by_organisation WHERE day >= :'month'::date;
SELECT count(*) AS by_team FROM cost_by_team WHERE day >= :'month'::date;
SELECT count(*) AS by_key FROM cost_by_key WHERE day >= :'month'::date;
SELECT count(*) AS by_user FROM cost_by_user WHERE day >= :'month'::date;
SELECT count(*) AS by_tag FROM cost_by_tag WHERE day >= :'month'::date;
SELECT count(*) AS unit_prices FROM unit_prices_paid WHERE day >= :'month'::date;
SELECT count(*) AS focus FROM focus_export WHERE "ChargePeriodStart" >= :'month';
SELECT count(*) AS cache_savings FROM cache_savings WHERE day >= :'month'::date;
\echo == those of what went wrong
SELECT sum(further_calls) AS retries FROM cost_of_retries WHERE day >= :'month'::date;
SELECT sum(calls) AS unpriced FROM unpriced_calls WHERE day >= :'month'::date;
SELECT sum(calls) AS orphaned FROM orphaned_calls WHERE day >= :'month'::date;
SELECT count(*) AS hedges FROM cost_of_hedges WHERE day >= :'month'::date;

\echo == the month is dropped
SELECT ledger_forget(:'after') AS months;
SELECT sum(calls) AS calls_in_the_sums FROM usage_slots WHERE slot >= :'month';
