-- Limits of a tenant, or the one of an id, and how they stand.
SELECT
    l.limit_id, l.name, l.measure, l.amount, l.organisation, l.team, l.key_id, l.tag_name, l.tag_value, l.model, l.provider,
    l.period, l.time_zone, l.window_seconds, l.when_away, l.notify_at AS "notify_at: Vec<Decimal>", l.webhook,
    state.used AS "spent!", state.open AS "leased!",
    CASE WHEN l.period IS NOT NULL THEN (budget_period(l, now())).ends END AS resets_at,
    (SELECT k.name FROM keys k WHERE k.key_id = l.key_id) AS key_name
FROM limits l CROSS JOIN LATERAL limit_state(l, $4) AS state
WHERE NOT l.removed AND ($3::uuid IS NULL OR l.limit_id = $3)
  AND ($1::text IS NULL OR l.organisation = $1 OR EXISTS (
      SELECT FROM keys k WHERE k.key_id = l.key_id AND k.organisation = $1 AND ($2::text IS NULL OR k.team = $2)))
  AND ($2::text IS NULL OR l.team = $2 OR EXISTS (
      SELECT FROM keys k WHERE k.key_id = l.key_id AND k.organisation = $1 AND k.team = $2))
ORDER BY l.name
