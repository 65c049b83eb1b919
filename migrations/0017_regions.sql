-- Where providers serve, as the configuration says it, for costs by region.

CREATE TABLE provider_regions (
    provider text        NOT NULL,
    -- From then on, at the beginning of a slot of the sums.
    since    timestamptz NOT NULL,
    -- NULL: the configuration says none.
    region   text,
    PRIMARY KEY (provider, since)
);
COMMENT ON TABLE provider_regions IS 'The region of each provider by its name in the configuration, from when on. Written by audit when it starts.';

-- The region of a provider at a time; before the first that is known, that one.
CREATE FUNCTION provider_region(of_provider text, at timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT region FROM provider_regions WHERE provider = of_provider
    ORDER BY since > at, CASE WHEN since > at THEN since END, since DESC LIMIT 1
$$;

CREATE VIEW cost_by_region AS
SELECT
    day, coalesce(provider_region(provider, slot), '') AS region, sum(calls)::bigint AS calls, sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens, sum(cost_usd) AS cost_usd, sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(orphaned_calls)::bigint AS orphaned_calls
FROM (
    SELECT
        slot, (slot AT TIME ZONE 'UTC')::date AS day, provider, sum(calls) AS calls, sum(input_tokens) AS input_tokens,
        sum(output_tokens) AS output_tokens, sum(cost_usd) AS cost_usd, sum(unpriced_calls) AS unpriced_calls,
        sum(orphaned_calls) AS orphaned_calls
    FROM usage_slots
    GROUP BY 1, 2, 3
) AS slots
GROUP BY 1, 2;
COMMENT ON VIEW cost_by_region IS
    'Completed calls, tokens and cost by UTC day and the region that the configuration says of their provider; empty where it says none.';
