SELECT
    model AS "group!",
    count(*) AS "calls!",
    least(coalesce(sum(input_tokens), 0), 9223372036854775807)::bigint AS "input_tokens!",
    least(coalesce(sum(output_tokens), 0), 9223372036854775807)::bigint AS "output_tokens!",
    coalesce(sum(cost_usd), 0) AS "cost_usd!",
    count(*) FILTER (WHERE cost_usd IS NULL) AS "unpriced_calls!",
    count(*) FILTER (WHERE state = 'orphaned') AS "orphaned_calls!"
FROM ledger
WHERE state <> 'open' AND started_at >= $1 AND started_at < $2
GROUP BY 1
ORDER BY 1
