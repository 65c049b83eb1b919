-- The view cache_savings, of one tenant or of all.
SELECT ARRAY[
    day::text,
    provider,
    provider_model,
    organisation,
    team,
    key_name,
    trim_scale(sum(quantity))::text,
    trim_scale(sum(usd))::text,
    trim_scale(sum(saved_usd))::text
] AS "cells!"
FROM usage_parts
WHERE day >= $1 AND day < $2 AND ($3::text IS NULL OR organisation = $3) AND ($4::text IS NULL OR team = $4) AND unit = 'cached_input' AND quantity <> 0
GROUP BY day, provider, provider_model, organisation, team, key_id, key_name
ORDER BY 1
LIMIT $5 OFFSET $6
