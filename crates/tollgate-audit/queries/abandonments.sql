-- Remembers the earliest moment at which an attempt's owner gave it up.
INSERT INTO abandonments (attempt_id, abandoned_at)
SELECT * FROM UNNEST($1::uuid[], $2::timestamptz[])
ON CONFLICT (attempt_id) DO UPDATE SET abandoned_at = excluded.abandoned_at
WHERE excluded.abandoned_at < abandonments.abandoned_at
