-- What completed calls cost, by a group; those of one tenant, or of all. Whole quarters of an hour are in the sums, of users whole days; what is
-- left at both ends of the time is read from the ledger, and so is all of it for groups that the sums do not have.
WITH kind AS (
    SELECT
        CASE WHEN $3 = 'user' THEN interval '1 day' ELSE interval '15 minutes' END AS slot,
        $3 <> 'tag' OR $5::text IS NULL AS summed
), whole AS (
    SELECT
        summed,
        date_bin(slot, $1::timestamptz + slot - interval '1 microsecond', '2000-01-01 00:00:00+00') AS first,
        date_bin(slot, $2::timestamptz, '2000-01-01 00:00:00+00') AS last
    FROM kind
), bounds AS (
    SELECT
        CASE WHEN summed THEN least(first, $2) ELSE $2 END AS first,
        CASE WHEN summed THEN greatest(last, least(first, $2)) ELSE $2 END AS last
    FROM whole
), rest AS (
    SELECT l.* FROM ledger l, bounds
    WHERE l.state <> 'open'
      AND (l.started_at >= $1 AND l.started_at < bounds.first OR l.started_at >= bounds.last AND l.started_at < $2)
), calls AS (
    SELECT
        slot AS at, organisation, team, key_name, model, provider, NULL AS end_user, NULL AS tag, calls, input_tokens,
        output_tokens, cost_usd, unpriced_calls, orphaned_calls
    FROM usage_slots, bounds
    WHERE $3 NOT IN ('tag', 'user') AND slot >= bounds.first AND slot < bounds.last
    UNION ALL
    SELECT
        day::timestamp AT TIME ZONE 'UTC', organisation, team, NULL, NULL, NULL, end_user, NULL, calls, input_tokens,
        output_tokens, cost_usd, unpriced_calls, orphaned_calls
    FROM usage_users, bounds
    WHERE $3 = 'user' AND day >= (bounds.first AT TIME ZONE 'UTC')::date AND day < (bounds.last AT TIME ZONE 'UTC')::date
    UNION ALL
    SELECT
        slot, organisation, NULL, NULL, NULL, NULL, NULL, name || '=' || value, calls, input_tokens, output_tokens, cost_usd,
        unpriced_calls, orphaned_calls
    FROM usage_tags, bounds
    WHERE $3 = 'tag' AND slot >= bounds.first AND slot < bounds.last
    UNION ALL
    SELECT
        started_at, organisation, team, key_name, model, provider, end_user, NULL, 1, input_tokens, output_tokens,
        coalesce(cost_usd, 0), (cost_usd IS NULL)::int, (state = 'orphaned')::int
    FROM rest
    WHERE $3 <> 'tag'
    UNION ALL
    SELECT
        started_at, organisation, team, key_name, model, provider, end_user, tag.key || '=' || tag.value, 1, input_tokens,
        output_tokens, coalesce(cost_usd, 0), (cost_usd IS NULL)::int, (state = 'orphaned')::int
    FROM rest CROSS JOIN LATERAL jsonb_each_text(tags) AS tag
    WHERE $3 = 'tag'
)
SELECT
    coalesce(
        CASE $3::text
            WHEN 'day' THEN (at AT TIME ZONE 'UTC')::date::text
            WHEN 'hour' THEN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:00')
            WHEN 'model' THEN model
            WHEN 'provider' THEN provider
            WHEN 'region' THEN provider_region(provider, at)
            WHEN 'key' THEN key_name
            WHEN 'organisation' THEN organisation
            WHEN 'team' THEN nullif(organisation, '') || '/' || nullif(team, '')
            WHEN 'user' THEN end_user
            WHEN 'tag' THEN tag
        END, '') AS "group!",
    sum(calls)::bigint AS "calls!",
    least(coalesce(sum(input_tokens), 0), 9223372036854775807)::bigint AS "input_tokens!",
    least(coalesce(sum(output_tokens), 0), 9223372036854775807)::bigint AS "output_tokens!",
    coalesce(sum(cost_usd), 0) AS "cost_usd!",
    sum(unpriced_calls)::bigint AS "unpriced_calls!",
    sum(orphaned_calls)::bigint AS "orphaned_calls!"
FROM calls
WHERE ($4::text IS NULL OR organisation = $4) AND ($5::text IS NULL OR team = $5)
GROUP BY 1
ORDER BY 1
