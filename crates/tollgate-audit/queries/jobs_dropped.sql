-- Writes which jobs were forgotten; the first time that was told stays.
INSERT INTO job_drops (job_id, dropped_at)
SELECT * FROM UNNEST($1::uuid[], $2::timestamptz[])
ON CONFLICT (job_id) DO NOTHING
