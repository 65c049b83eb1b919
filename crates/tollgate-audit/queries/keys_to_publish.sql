-- Keys with a revision that nobody was told of, held until they are told of, with all that makes up their rights.
SELECT
    k.key_id, k.name, k.organisation, k.team, k.rights, k.expires_at, k.disabled_at, k.revision,
    (SELECT t.rights FROM teams t WHERE t.organisation = k.organisation AND t.name = k.team) AS team_rights,
    (SELECT o.rights FROM organisations o WHERE o.name = k.organisation) AS organisation_rights,
    coalesce((
        SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'sha256', encode(s.sha256, 'hex'), 'until', (extract(epoch FROM s.until) * 1000)::bigint)))
        FROM key_secrets s WHERE s.key_id = k.key_id AND (s.until IS NULL OR s.until > now())
    ), '[]') AS "secrets!"
FROM keys k
WHERE k.published < k.revision
ORDER BY k.key_id
LIMIT $1
FOR UPDATE SKIP LOCKED
