-- What calls were billed for, summed by day: unit prices, cache savings and the FOCUS export are answered from it.

CREATE TABLE usage_parts (
    day            date    NOT NULL,
    -- Empty for what has none, so that it can be part of the key.
    organisation   text    NOT NULL,
    team           text    NOT NULL,
    key_id         uuid    NOT NULL,
    key_name       text    NOT NULL,
    model          text    NOT NULL,
    provider       text    NOT NULL,
    provider_model text    NOT NULL,
    tier           text    NOT NULL,
    -- `call` for those of which only the provider says the whole; their rate is 0.
    unit           text    NOT NULL,
    rate_usd       numeric NOT NULL,
    quantity       numeric NOT NULL,
    -- Before multipliers and discounts.
    usd            numeric NOT NULL,
    -- With them: the call's cost in proportion to its parts.
    billed_usd     numeric NOT NULL,
    -- How much less it was than the rate for input, of tokens that were read from a cache.
    saved_usd      numeric NOT NULL,
    PRIMARY KEY (day, key_id, provider, provider_model, model, tier, unit, rate_usd, organisation, team, key_name)
);
COMMENT ON TABLE usage_parts IS
    'What completed calls were billed for by UTC day, key, model, unit and rate, corrections included. Kept in the transaction that completes a call.';

-- The parts of a call.
CREATE FUNCTION call_parts(
    cost numeric, breakdown jsonb, price bigint,
    OUT tier text, OUT unit text, OUT rate_usd numeric, OUT quantity numeric, OUT usd numeric, OUT billed_usd numeric,
    OUT saved_usd numeric
) RETURNS SETOF record LANGUAGE sql STABLE AS $$
    WITH parts AS (
        SELECT
            part ->> 0 AS unit, (part ->> 1)::numeric AS quantity, (part ->> 2)::numeric AS rate_usd, (part ->> 3)::numeric AS usd
        FROM jsonb_array_elements(breakdown -> 'parts') AS part
    ), whole AS (
        SELECT
            coalesce(sum(usd) FILTER (WHERE usd > 0), 0) AS usd,
            -- What cached tokens would have cost: as the others of the call, or as the sheet says when there were none.
            coalesce(
                min(rate_usd) FILTER (WHERE unit = 'input'),
                (SELECT (p.sheet #>> '{per_million,input}')::numeric FROM price_sheets p WHERE p.id = price)
            ) AS input_rate
        FROM parts
    )
    SELECT
        coalesce(breakdown ->> 'tier', 'standard'), p.unit, p.rate_usd, p.quantity, p.usd,
        CASE WHEN cost > 0 AND p.usd > 0 THEN cost * p.usd / whole.usd ELSE 0 END,
        CASE WHEN p.unit = 'cached_input' THEN coalesce(p.quantity * (whole.input_rate - p.rate_usd) / 1000000, 0) ELSE 0 END
    FROM parts p, whole
    UNION ALL
    SELECT 'standard', 'call', 0, 1, 0, cost, 0 FROM whole WHERE cost > 0 AND whole.usd = 0
$$;

-- Adds calls that have just completed to the sums.
CREATE FUNCTION usage_add_parts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_parts
    SELECT
        (started_at AT TIME ZONE 'UTC')::date, coalesce(organisation, ''), coalesce(team, ''), key_id, key_name, model, provider,
        provider_model, p.tier, p.unit, p.rate_usd, sum(p.quantity), sum(p.usd), sum(p.billed_usd), sum(p.saved_usd)
    FROM changed CROSS JOIN LATERAL call_parts(cost_usd, cost_breakdown, price_id) AS p
    WHERE state <> 'open'
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    ORDER BY 1, 4, 7, 8, 6, 9, 10, 11, 2, 3, 5
    ON CONFLICT (day, key_id, provider, provider_model, model, tier, unit, rate_usd, organisation, team, key_name) DO UPDATE SET
        quantity = usage_parts.quantity + excluded.quantity,
        usd = usage_parts.usd + excluded.usd,
        billed_usd = usage_parts.billed_usd + excluded.billed_usd,
        saved_usd = usage_parts.saved_usd + excluded.saved_usd;
    RETURN NULL;
END $$;

-- Takes the estimates of calls that are corrected out of the sums, and adds what they really used.
CREATE FUNCTION usage_add_corrected_parts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_parts
    SELECT
        (a.started_at AT TIME ZONE 'UTC')::date, coalesce(a.organisation, ''), coalesce(a.team, ''), a.key_id, a.key_name,
        a.model, a.provider, a.provider_model, p.tier, p.unit, p.rate_usd, sum(p.sign * p.quantity), sum(p.sign * p.usd),
        sum(p.sign * p.billed_usd), sum(p.sign * p.saved_usd)
    FROM changed c JOIN attempts a ON a.attempt_id = c.attempt_id CROSS JOIN LATERAL (
        SELECT -1 AS sign, * FROM call_parts(a.cost_usd, a.cost_breakdown, a.price_id)
        UNION ALL
        SELECT 1, * FROM call_parts(coalesce(a.cost_usd, 0) + c.cost_usd_delta, c.cost_breakdown, c.price_id)
    ) AS p
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    ORDER BY 1, 4, 7, 8, 6, 9, 10, 11, 2, 3, 5
    ON CONFLICT (day, key_id, provider, provider_model, model, tier, unit, rate_usd, organisation, team, key_name) DO UPDATE SET
        quantity = usage_parts.quantity + excluded.quantity,
        usd = usage_parts.usd + excluded.usd,
        billed_usd = usage_parts.billed_usd + excluded.billed_usd,
        saved_usd = usage_parts.saved_usd + excluded.saved_usd;
    RETURN NULL;
END $$;

CREATE TRIGGER usage_parts_of_new_attempts AFTER INSERT ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_add_parts();
CREATE TRIGGER usage_parts_of_completed_attempts AFTER UPDATE ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_add_parts();
CREATE TRIGGER usage_parts_of_corrections AFTER INSERT ON attempt_corrections
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_add_corrected_parts();

-- The parts of whole days anew, from the ledger.
CREATE FUNCTION usage_rebuild_parts(first date, last date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE attempts, attempt_corrections IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM usage_parts WHERE day BETWEEN first AND last;
    INSERT INTO usage_parts
    SELECT
        day, coalesce(organisation, ''), coalesce(team, ''), key_id, key_name, model, provider, provider_model, p.tier, p.unit,
        p.rate_usd, sum(p.quantity), sum(p.usd), sum(p.billed_usd), sum(p.saved_usd)
    FROM ledger CROSS JOIN LATERAL call_parts(cost_usd, cost_breakdown, price_id) AS p
    WHERE state <> 'open' AND started_at >= first::timestamp AT TIME ZONE 'UTC'
      AND started_at < (last::timestamp + interval '1 day') AT TIME ZONE 'UTC'
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
END $$;

ALTER FUNCTION usage_rebuild(timestamptz, timestamptz) RENAME TO usage_rebuild_slots;
-- All sums of the time from `since` to before `until` anew from the ledger; those by day for the whole of each day.
CREATE FUNCTION usage_rebuild(since timestamptz, until timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT usage_rebuild_slots(since, until);
    SELECT usage_rebuild_parts(
        (since AT TIME ZONE 'UTC')::date, ((until - interval '1 microsecond') AT TIME ZONE 'UTC')::date);
$$;

SELECT usage_rebuild_parts('-infinity', 'infinity');

CREATE OR REPLACE VIEW unit_prices_paid AS
SELECT
    day, provider, provider_model, tier, unit,
    sum(quantity)                                 AS quantity,
    sum(usd)                                      AS usd,
    -- For a million of tokens and for one of anything else, as the rates are.
    min(rate_usd)                                 AS lowest_rate_usd,
    max(rate_usd)                                 AS highest_rate_usd,
    round(sum(rate_usd * quantity) / sum(quantity), 12) AS average_rate_usd
FROM usage_parts
-- Of a part that was corrected nothing may be left.
WHERE unit <> 'call' AND quantity <> 0
GROUP BY 1, 2, 3, 4, 5;

CREATE OR REPLACE VIEW cache_savings AS
SELECT
    day, provider, provider_model, key_id, key_name,
    sum(quantity)  AS cached_tokens,
    sum(usd)       AS cost_usd,
    sum(saved_usd) AS saved_usd
FROM usage_parts
WHERE unit = 'cached_input' AND quantity <> 0
GROUP BY 1, 2, 3, 4, 5;

CREATE OR REPLACE VIEW focus_export AS
SELECT
    sum(billed_usd)                                                     AS "BilledCost",
    'USD'                                                               AS "BillingCurrency",
    date_trunc('month', day::timestamp) AT TIME ZONE 'UTC'              AS "BillingPeriodStart",
    (date_trunc('month', day::timestamp) + interval '1 month') AT TIME ZONE 'UTC' AS "BillingPeriodEnd",
    'Usage'                                                             AS "ChargeCategory",
    day::timestamp AT TIME ZONE 'UTC'                                   AS "ChargePeriodStart",
    (day::timestamp + interval '1 day') AT TIME ZONE 'UTC'              AS "ChargePeriodEnd",
    'AI and Machine Learning'                                           AS "ServiceCategory",
    provider                                                            AS "ServiceName",
    provider                                                            AS "ProviderName",
    provider_model                                                      AS "ResourceId",
    provider_model || '/' || unit || '/' || tier                        AS "SkuId",
    sum(quantity)                                                       AS "ConsumedQuantity",
    unit                                                                AS "ConsumedUnit",
    -- Of calls of which only the provider says the whole there is none.
    CASE WHEN unit <> 'call' THEN rate_usd END                          AS "ContractedUnitPrice",
    organisation                                                        AS "SubAccountId",
    jsonb_strip_nulls(jsonb_build_object('team', nullif(team, ''), 'key', key_name, 'model', model)) AS "Tags"
FROM usage_parts
WHERE billed_usd <> 0
GROUP BY day, provider, provider_model, unit, tier, rate_usd, organisation, team, key_name, model;
