-- The view cost_forecast, of one tenant or of all; nothing when its month lies outside the time.
SELECT ARRAY[
    month::text,
    coalesce(organisation, ''),
    coalesce(team, ''),
    trim_scale(spent_usd)::text,
    trim_scale(forecast_usd)::text
] AS "cells!"
FROM cost_forecast
WHERE month + interval '1 month' > $1::date AND month < $2::date AND ($3::text IS NULL OR organisation = $3) AND ($4::text IS NULL OR team = $4)
ORDER BY 1
LIMIT $5 OFFSET $6
