-- Ends requests whose owner was lost before it could say how they ended: those of attempts that started in the time given,
-- which lies so far back that nobody would still say it. The end of a job is told elsewhere.
INSERT INTO requests (
    request_id, state, error_code, resends, key_id, key_name, tags, model, dialect, stream, accepted_at, concluded_at,
    organisation, team, end_user
)
SELECT DISTINCT ON (a.request_id)
    a.request_id, 'failed', 'unavailable', a.generation, a.key_id, a.key_name, a.tags, a.model, a.dialect, a.stream,
    a.started_at, $2, a.organisation, a.team, a.end_user
FROM attempts a
WHERE a.started_at >= $1 AND a.started_at < $2
  AND NOT EXISTS (SELECT FROM requests r WHERE r.request_id = a.request_id)
  AND NOT EXISTS (SELECT FROM job_submissions j WHERE j.job_id = a.request_id)
ORDER BY a.request_id, a.started_at, a.generation
ON CONFLICT DO NOTHING
