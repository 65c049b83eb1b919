-- Makes a limit, or replaces what it allows. What it is for stays, and from when a budget without a period counts.
INSERT INTO limits (
    limit_id, name, measure, amount, organisation, team, key_id, tag_name, tag_value, model, provider, period, time_zone,
    window_seconds, when_away, notify_at, webhook, by_organisation, by_team, since
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, usage_slot(now()))
ON CONFLICT (limit_id) DO UPDATE SET
    amount = excluded.amount, period = excluded.period, time_zone = excluded.time_zone,
    window_seconds = excluded.window_seconds, when_away = excluded.when_away, notify_at = excluded.notify_at,
    webhook = excluded.webhook
WHERE (limits.measure, limits.organisation, limits.team, limits.key_id, limits.tag_name, limits.tag_value, limits.model,
       limits.provider)
    IS NOT DISTINCT FROM
      (excluded.measure, excluded.organisation, excluded.team, excluded.key_id, excluded.tag_name, excluded.tag_value,
       excluded.model, excluded.provider)
