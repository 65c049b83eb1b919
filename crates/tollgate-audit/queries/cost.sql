-- What completed calls cost, by a group; those of one tenant, or of all.
SELECT
    named.name AS "group!",
    count(*) AS "calls!",
    least(coalesce(sum(input_tokens), 0), 9223372036854775807)::bigint AS "input_tokens!",
    least(coalesce(sum(output_tokens), 0), 9223372036854775807)::bigint AS "output_tokens!",
    coalesce(sum(cost_usd), 0) AS "cost_usd!",
    count(*) FILTER (WHERE cost_usd IS NULL) AS "unpriced_calls!",
    count(*) FILTER (WHERE state = 'orphaned') AS "orphaned_calls!"
FROM ledger
CROSS JOIN LATERAL (
    SELECT coalesce(
        CASE $3::text
            WHEN 'day' THEN day::text
            WHEN 'hour' THEN to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:00')
            WHEN 'model' THEN model
            WHEN 'provider' THEN provider
            WHEN 'key' THEN key_name
            WHEN 'organisation' THEN organisation
            WHEN 'team' THEN organisation || '/' || team
            WHEN 'user' THEN end_user
        END, '') AS name
    WHERE $3 <> 'tag'
    UNION ALL
    SELECT tag.key || '=' || tag.value FROM jsonb_each_text(tags) AS tag WHERE $3 = 'tag'
) AS named
WHERE state <> 'open' AND started_at >= $1 AND started_at < $2
  AND ($4::text IS NULL OR organisation = $4) AND ($5::text IS NULL OR team = $5)
GROUP BY 1
ORDER BY 1
