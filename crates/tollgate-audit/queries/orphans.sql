-- Completes attempts whose end nobody saw with their estimates.
UPDATE attempts a SET
    state = 'orphaned',
    input_tokens = o.input_tokens,
    cached_input_tokens = 0,
    cache_write_input_tokens = 0,
    cache_write_1h_input_tokens = 0,
    audio_input_tokens = 0,
    output_tokens = o.output_tokens,
    reasoning_tokens = 0,
    audio_output_tokens = 0,
    web_searches = 0,
    usage_source = 'estimated',
    price_id = o.price_id,
    cost_usd = o.cost_usd,
    cost_breakdown = o.cost_breakdown
FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::numeric[], $6::jsonb[])
    AS o (attempt_id, input_tokens, output_tokens, price_id, cost_usd, cost_breakdown)
WHERE a.attempt_id = o.attempt_id
