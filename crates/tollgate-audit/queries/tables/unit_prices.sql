-- The view unit_prices_paid, of one tenant or of all.
SELECT ARRAY[
    day::text,
    provider,
    provider_model,
    tier,
    unit,
    trim_scale(sum(quantity))::text,
    trim_scale(sum(usd))::text,
    trim_scale(min(rate_usd))::text,
    trim_scale(max(rate_usd))::text,
    trim_scale(round(sum(rate_usd * quantity) / sum(quantity), 12))::text
] AS "cells!"
FROM usage_parts
WHERE day >= $1 AND day < $2 AND ($3::text IS NULL OR organisation = $3) AND ($4::text IS NULL OR team = $4) AND unit <> 'call' AND quantity <> 0
GROUP BY day, provider, provider_model, tier, unit
ORDER BY 1
LIMIT $5 OFFSET $6
