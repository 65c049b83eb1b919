-- Keys of a tenant, or of all; all of them, or the one of an id or a name.
SELECT
    k.key_id, k.name, k.organisation, k.team, k.rights, k.expires_at, k.disabled_at, k.created_at, k.created_by,
    ARRAY(SELECT s.ending FROM key_secrets s
          WHERE s.key_id = k.key_id AND (s.until IS NULL OR s.until > now()) ORDER BY s.created_at DESC) AS "endings!"
FROM keys k
WHERE ($1::text IS NULL OR k.organisation = $1) AND ($2::text IS NULL OR k.team = $2)
  AND ($3::uuid IS NULL OR k.key_id = $3) AND ($4::text IS NULL OR k.name = $4)
ORDER BY k.organisation NULLS FIRST, k.team NULLS FIRST, k.name
