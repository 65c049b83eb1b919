-- Writes ends of jobs, and the requests that they are; the first that was told stays.
WITH told AS (
    SELECT * FROM UNNEST(
        $1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::uuid[], $7::text[], $8::jsonb[],
        $9::text[], $10::text[], $11::timestamptz[]
    ) AS t (job_id, state, error_code, failed_calls, ended_at, key_id, key_name, tags, model, dialect, submitted_at)
), request AS (
    INSERT INTO requests (
        request_id, state, error_code, resends, key_id, key_name, tags, model, dialect, stream, accepted_at, concluded_at
    )
    SELECT job_id, state, error_code, 0, key_id, key_name, tags, model, dialect, false, submitted_at, ended_at FROM told
    ON CONFLICT (request_id) DO NOTHING
)
INSERT INTO job_ends (job_id, state, error_code, failed_calls, ended_at)
SELECT job_id, state, error_code, failed_calls, ended_at FROM told
ON CONFLICT (job_id) DO NOTHING
