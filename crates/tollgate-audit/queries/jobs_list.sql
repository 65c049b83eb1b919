-- A key's jobs, newest first, after the one that the last part of the list ended with.
SELECT
    job_id AS "job_id!", tags AS "tags!", batch, priority AS "priority!", model AS "model!",
    submitted_at AS "submitted_at!", not_before, deadline_at AS "deadline_at!", state AS "state!", error_code,
    failed_calls AS "failed_calls!", ended_at
FROM jobs
WHERE key_id = $1
  AND dropped_at IS NULL
  AND ($2::text IS NULL OR batch = $2)
  AND ($3::text IS NULL OR state = $3)
  AND (submitted_at, job_id) < ($4, $5)
ORDER BY submitted_at DESC, job_id DESC
LIMIT $6
