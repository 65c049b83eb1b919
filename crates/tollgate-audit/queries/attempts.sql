-- Writes attempts, open or settled, in the order given. An open row settles; a completed one stays as it is, and is
-- then not returned. One statement for both, so that two writers lock rows in the same order.
INSERT INTO attempts (
    attempt_id, request_id, generation, retry, provider, provider_model, model, key_id, key_name, tags, dialect, stream,
    started_at, deadline_at, estimated_input_tokens, max_output_tokens, state, outcome, error_code, provider_status,
    served_model, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, usage_source, price_id, cost_usd,
    ended_at, first_token_ms
)
SELECT * FROM UNNEST(
    $1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::uuid[], $9::text[],
    $10::jsonb[], $11::text[], $12::boolean[], $13::timestamptz[], $14::timestamptz[], $15::bigint[], $16::bigint[],
    $17::text[], $18::text[], $19::text[], $20::integer[], $21::text[], $22::bigint[], $23::bigint[], $24::bigint[],
    $25::bigint[], $26::text[], $27::bigint[], $28::numeric[], $29::timestamptz[], $30::bigint[]
)
ON CONFLICT (attempt_id) DO UPDATE SET
    state = excluded.state,
    outcome = excluded.outcome,
    error_code = excluded.error_code,
    provider_status = excluded.provider_status,
    served_model = excluded.served_model,
    input_tokens = excluded.input_tokens,
    cached_input_tokens = excluded.cached_input_tokens,
    output_tokens = excluded.output_tokens,
    reasoning_tokens = excluded.reasoning_tokens,
    usage_source = excluded.usage_source,
    price_id = excluded.price_id,
    cost_usd = excluded.cost_usd,
    ended_at = excluded.ended_at,
    first_token_ms = excluded.first_token_ms
WHERE attempts.state = 'open' AND excluded.state = 'settled'
RETURNING attempt_id, state
