-- Takes notices that are to be told now; another process may try them after a minute, should this one not live to say how it went.
UPDATE limit_notices n SET tries = n.tries + 1, next_try = now() + interval '1 minute'
FROM (
    SELECT notice_id FROM limit_notices
    WHERE told_at IS NULL AND NOT given_up AND next_try <= now()
    ORDER BY next_try LIMIT 20 FOR UPDATE SKIP LOCKED
) AS due
JOIN limit_notices this USING (notice_id)
JOIN limits l ON l.limit_id = this.limit_id
WHERE n.notice_id = due.notice_id
RETURNING n.notice_id, n.limit_id, l.name, n.period, n.share, n.spent_usd, n.amount_usd, n.webhook, n.crossed_at, n.tries
