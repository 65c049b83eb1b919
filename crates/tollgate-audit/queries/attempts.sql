-- Writes attempts, open or settled, in the order given. An open row settles; a completed one stays as it is, and is
-- then not returned. One statement for both, so that two writers lock rows in the same order.
INSERT INTO attempts (
    attempt_id, request_id, generation, retry, provider, provider_model, model, key_id, key_name, tags, dialect,
    operation, stream, started_at, deadline_at, estimated_input_tokens, max_output_tokens, state, outcome,
    error_code, provider_status, served_model, input_tokens, cached_input_tokens, cache_write_input_tokens,
    cache_write_1h_input_tokens, audio_input_tokens, output_tokens, reasoning_tokens, audio_output_tokens,
    web_searches, usage_source, price_id, cost_usd, cost_breakdown, ended_at, first_token_ms, hedge,
    organisation, team, end_user, hold_usd, hold_leases
)
SELECT
    attempt_id, request_id, generation, retry, provider, provider_model, model, key_id, key_name, tags, dialect, operation,
    stream, started_at, deadline_at, estimated_input_tokens, max_output_tokens, state, outcome, error_code, provider_status,
    served_model, input_tokens, cached_input_tokens, cache_write_input_tokens, cache_write_1h_input_tokens,
    audio_input_tokens, output_tokens, reasoning_tokens, audio_output_tokens, web_searches, usage_source, price_id, cost_usd,
    cost_breakdown, ended_at, first_token_ms, hedge, organisation, team, end_user, hold_usd,
    CASE WHEN hold_leases IS NOT NULL
        THEN ARRAY(SELECT lease::uuid FROM jsonb_array_elements_text(hold_leases) AS lease) END
FROM UNNEST(
    $1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::uuid[], $9::text[],
    $10::jsonb[], $11::text[], $12::text[], $13::boolean[], $14::timestamptz[], $15::timestamptz[], $16::bigint[],
    $17::bigint[], $18::text[], $19::text[], $20::text[], $21::integer[], $22::text[], $23::bigint[], $24::bigint[],
    $25::bigint[], $26::bigint[], $27::bigint[], $28::bigint[], $29::bigint[], $30::bigint[], $31::bigint[],
    $32::text[], $33::bigint[], $34::numeric[], $35::jsonb[], $36::timestamptz[], $37::bigint[], $38::boolean[],
    $39::text[], $40::text[], $41::text[], $42::numeric[], $43::jsonb[]
) AS a (
    attempt_id, request_id, generation, retry, provider, provider_model, model, key_id, key_name, tags, dialect, operation,
    stream, started_at, deadline_at, estimated_input_tokens, max_output_tokens, state, outcome, error_code, provider_status,
    served_model, input_tokens, cached_input_tokens, cache_write_input_tokens, cache_write_1h_input_tokens,
    audio_input_tokens, output_tokens, reasoning_tokens, audio_output_tokens, web_searches, usage_source, price_id, cost_usd,
    cost_breakdown, ended_at, first_token_ms, hedge, organisation, team, end_user, hold_usd, hold_leases
)
ON CONFLICT (attempt_id) DO UPDATE SET
    state = excluded.state,
    outcome = excluded.outcome,
    error_code = excluded.error_code,
    provider_status = excluded.provider_status,
    served_model = excluded.served_model,
    input_tokens = excluded.input_tokens,
    cached_input_tokens = excluded.cached_input_tokens,
    cache_write_input_tokens = excluded.cache_write_input_tokens,
    cache_write_1h_input_tokens = excluded.cache_write_1h_input_tokens,
    audio_input_tokens = excluded.audio_input_tokens,
    output_tokens = excluded.output_tokens,
    reasoning_tokens = excluded.reasoning_tokens,
    audio_output_tokens = excluded.audio_output_tokens,
    web_searches = excluded.web_searches,
    usage_source = excluded.usage_source,
    price_id = excluded.price_id,
    cost_usd = excluded.cost_usd,
    cost_breakdown = excluded.cost_breakdown,
    ended_at = excluded.ended_at,
    first_token_ms = excluded.first_token_ms
WHERE attempts.state = 'open' AND excluded.state = 'settled'
RETURNING attempt_id, state
