-- Writes accepted jobs; what is known stays.
INSERT INTO job_submissions (
    job_id, key_id, key_name, tags, batch, priority, model, dialect, operation, submitted_at, not_before, deadline_at
)
SELECT * FROM UNNEST(
    $1::uuid[], $2::uuid[], $3::text[], $4::jsonb[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::timestamptz[], $11::timestamptz[], $12::timestamptz[]
)
ON CONFLICT (job_id) DO NOTHING
