-- What the ledger has to hold against a provider's bill: completed calls by UTC day and model, with what of them is estimated.
SELECT
    day AS "day!",
    provider_model AS "asked!",
    coalesce(served_model, provider_model) AS "served!",
    -- A call that used nothing is on no bill.
    count(*) FILTER (WHERE input_tokens > 0 OR output_tokens > 0) AS "requests!",
    coalesce(sum(input_tokens), 0)::bigint AS "input_tokens!",
    coalesce(sum(output_tokens), 0)::bigint AS "output_tokens!",
    coalesce(sum(cost_usd), 0) AS "usd!",
    count(*) FILTER (WHERE estimated AND (input_tokens > 0 OR output_tokens > 0)) AS "estimated_requests!",
    coalesce(sum(input_tokens) FILTER (WHERE estimated), 0)::bigint AS "estimated_input_tokens!",
    coalesce(sum(output_tokens) FILTER (WHERE estimated), 0)::bigint AS "estimated_output_tokens!",
    coalesce(sum(cost_usd) FILTER (WHERE estimated), 0) AS "estimated_usd!",
    count(*) FILTER (WHERE cost_usd IS NULL) AS "unpriced!"
FROM (
    -- Nobody saw the end of the call, or its provider did not say what it used.
    SELECT *, coalesce(usage_source IN ('counted', 'estimated'), false) AS estimated
    FROM ledger
) AS calls
WHERE state <> 'open' AND day >= $1 AND day <= $2
  AND started_at >= $1::date::timestamp AT TIME ZONE 'UTC' AND started_at < ($2::date + 1)::timestamp AT TIME ZONE 'UTC'
  AND ($3::text[] IS NULL OR provider = ANY ($3))
GROUP BY 1, 2, 3
