-- Writes the ends of requests; the first one told stays.
INSERT INTO requests (
    request_id, state, error_code, resends, key_id, key_name, tags, model, dialect, stream, accepted_at, concluded_at,
    organisation, team, end_user
)
SELECT * FROM UNNEST(
    $1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::uuid[], $6::text[], $7::jsonb[], $8::text[], $9::text[],
    $10::boolean[], $11::timestamptz[], $12::timestamptz[], $13::text[], $14::text[], $15::text[]
)
ON CONFLICT (request_id) DO NOTHING
