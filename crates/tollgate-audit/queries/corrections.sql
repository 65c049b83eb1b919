-- What orphaned attempts had really used: the settlements that came too late to complete their rows. A settlement of a
-- row that it completed, or that another had completed, changes nothing here.
INSERT INTO attempt_corrections (
    attempt_id, outcome, error_code, provider_status, served_model, input_tokens_delta, cached_input_tokens_delta,
    cache_write_input_tokens_delta, cache_write_1h_input_tokens_delta, audio_input_tokens_delta,
    output_tokens_delta, reasoning_tokens_delta, audio_output_tokens_delta, web_searches_delta, usage_source,
    price_id, cost_usd_delta, cost_breakdown, ended_at, first_token_ms
)
SELECT
    a.attempt_id, s.outcome, s.error_code, s.provider_status, s.served_model, s.input_tokens - a.input_tokens,
    s.cached_input_tokens - a.cached_input_tokens, s.cache_write_input_tokens - a.cache_write_input_tokens,
    s.cache_write_1h_input_tokens - a.cache_write_1h_input_tokens, s.audio_input_tokens - a.audio_input_tokens,
    s.output_tokens - a.output_tokens, s.reasoning_tokens - a.reasoning_tokens, s.audio_output_tokens -
    a.audio_output_tokens, s.web_searches - a.web_searches, s.usage_source, s.price_id, s.cost_usd -
    coalesce(a.cost_usd, 0), s.cost_breakdown, s.ended_at, s.first_token_ms
FROM UNNEST(
    $1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::text[],
    $16::bigint[], $17::numeric[], $18::jsonb[], $19::timestamptz[], $20::bigint[]
) AS s (
    attempt_id, outcome, error_code, provider_status, served_model, input_tokens, cached_input_tokens,
    cache_write_input_tokens, cache_write_1h_input_tokens, audio_input_tokens, output_tokens, reasoning_tokens,
    audio_output_tokens, web_searches, usage_source, price_id, cost_usd, cost_breakdown, ended_at,
    first_token_ms
)
JOIN attempts a ON a.attempt_id = s.attempt_id
WHERE a.state = 'orphaned'
ORDER BY a.attempt_id
ON CONFLICT (attempt_id) DO NOTHING
