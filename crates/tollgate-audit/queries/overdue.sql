-- Open attempts whose deadline, or whose owner's patience, ended before $1. Rows that somebody else is completing are
-- left to him.
SELECT a.attempt_id, a.provider, a.provider_model, a.operation, a.started_at, a.estimated_input_tokens,
    a.max_output_tokens
FROM attempts a
LEFT JOIN abandonments b ON b.attempt_id = a.attempt_id
WHERE a.state = 'open' AND least(a.deadline_at, b.abandoned_at) < $1
ORDER BY a.attempt_id
LIMIT $2
FOR UPDATE OF a SKIP LOCKED
