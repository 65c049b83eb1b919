-- The view cost_of_retries, of one tenant or of all.
SELECT ARRAY[
    day::text,
    model,
    trim_scale(sum(requests_tried_again))::text,
    trim_scale(sum(further_calls))::text,
    trim_scale(sum(never_answered))::text,
    trim_scale(sum(lost_usd))::text,
    trim_scale(sum(cost_usd))::text
] AS "cells!"
FROM cost_of_retries_by_team
WHERE day >= $1 AND day < $2 AND ($3::text IS NULL OR organisation = $3) AND ($4::text IS NULL OR team = $4)
GROUP BY day, model
ORDER BY 1
LIMIT $5 OFFSET $6
