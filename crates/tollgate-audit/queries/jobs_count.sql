-- How many of a key's jobs of a batch are in which state.
SELECT
    count(*) FILTER (WHERE state = 'waiting') AS "waiting!",
    count(*) FILTER (WHERE state = 'answered') AS "answered!",
    count(*) FILTER (WHERE state NOT IN ('waiting', 'answered')) AS "not_answered!",
    count(*) FILTER (WHERE error_code = 'deadline_exceeded') AS "overdue!"
FROM jobs
WHERE key_id = $1 AND batch = $2
