-- The view unpriced_calls, of one tenant or of all.
SELECT ARRAY[
    day::text,
    provider,
    provider_model,
    served_model,
    coalesce(organisation, ''),
    coalesce(team, ''),
    key_name,
    calls::text,
    input_tokens::text,
    output_tokens::text
] AS "cells!"
FROM unpriced_calls
WHERE day >= $1 AND day < $2 AND ($3::text IS NULL OR organisation = $3) AND ($4::text IS NULL OR team = $4)
ORDER BY 1
LIMIT $5 OFFSET $6
