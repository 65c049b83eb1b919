-- The view cost_of_hedges, of one tenant or of all.
SELECT ARRAY[
    day::text,
    model,
    trim_scale(sum(hedged_requests))::text,
    trim_scale(sum(hedges))::text,
    trim_scale(sum(answered_by_hedge))::text,
    trim_scale(coalesce(sum(cost_usd), 0))::text,
    trim_scale(coalesce(sum(extra_usd), 0))::text
] AS "cells!"
FROM cost_of_hedges_by_team
WHERE day >= $1 AND day < $2 AND ($3::text IS NULL OR organisation = $3) AND ($4::text IS NULL OR team = $4)
GROUP BY day, model
ORDER BY 1
LIMIT $5 OFFSET $6
