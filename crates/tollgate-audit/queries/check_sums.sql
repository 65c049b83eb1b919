-- Sums that are not what the ledger says, by name; none when all is well. What parts were billed is in proportion, to the twelfth digit.
WITH calls AS (
    SELECT
        count(*) AS calls, coalesce(sum(input_tokens), 0) AS input, coalesce(sum(output_tokens), 0) AS output,
        coalesce(sum(cost_usd), 0) AS usd
    FROM ledger WHERE state <> 'open'
), slots AS (
    SELECT
        coalesce(sum(s.calls), 0) AS calls, coalesce(sum(input_tokens), 0) AS input, coalesce(sum(output_tokens), 0) AS output,
        coalesce(sum(cost_usd), 0) AS usd
    FROM usage_slots s
), users AS (
    SELECT
        coalesce(sum(u.calls), 0) AS calls, coalesce(sum(input_tokens), 0) AS input, coalesce(sum(output_tokens), 0) AS output,
        coalesce(sum(cost_usd), 0) AS usd
    FROM usage_users u
), parts AS (
    SELECT round(coalesce(sum(billed_usd), 0), 12) AS usd FROM usage_parts
), paid AS (
    -- A lease knows of each call that it pays for once.
    SELECT
        lease_id, coalesce(sum(hold_usd) FILTER (WHERE state = 'open'), 0) AS held,
        coalesce(sum(cost_usd) FILTER (WHERE state <> 'open'), 0) AS settled
    FROM attempts CROSS JOIN LATERAL unnest(hold_leases) AS lease_id
    GROUP BY 1
)
SELECT 'calls, tokens or dollars by quarter of an hour' AS "what!" FROM calls, slots
WHERE (calls.calls, calls.input, calls.output, calls.usd) <> (slots.calls, slots.input, slots.output, slots.usd)
UNION ALL
SELECT 'calls, tokens or dollars by user' FROM calls, users
WHERE (calls.calls, calls.input, calls.output, calls.usd) <> (users.calls, users.input, users.output, users.usd)
UNION ALL
SELECT 'dollars by part' FROM calls, parts WHERE round(calls.usd, 12) <> parts.usd
UNION ALL
SELECT 'calls of lease ' || l.lease_id FROM leases l LEFT JOIN paid USING (lease_id)
WHERE (l.held, l.settled) <> (coalesce(paid.held, 0), coalesce(paid.settled, 0))
