-- Reports for those who pay: by hour, what was paid for a unit, what caches saved, what retries cost, what a month comes to.

CREATE VIEW cost_by_hour AS
SELECT
    date_trunc('hour', started_at)             AS hour,
    count(*)                                   AS calls,
    coalesce(sum(input_tokens), 0)             AS input_tokens,
    coalesce(sum(output_tokens), 0)            AS output_tokens,
    coalesce(sum(cost_usd), 0)                 AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL)   AS unpriced_calls,
    count(*) FILTER (WHERE state = 'orphaned') AS orphaned_calls
FROM ledger
WHERE state <> 'open'
GROUP BY 1;
COMMENT ON VIEW cost_by_hour IS
    'Completed calls, tokens and cost by hour. cost_usd is without the unpriced calls; orphaned calls count with their estimates.';

CREATE VIEW orphaned_calls AS
SELECT
    day, provider, model, key_id, key_name,
    count(*)                        AS calls,
    coalesce(sum(input_tokens), 0)  AS input_tokens,
    coalesce(sum(output_tokens), 0) AS output_tokens,
    coalesce(sum(cost_usd), 0)      AS cost_usd
FROM ledger
WHERE state = 'orphaned'
GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW orphaned_calls IS
    'Calls whose end nobody saw, by UTC day, provider, model and key, with their estimates.';

CREATE VIEW unit_prices_paid AS
SELECT
    day, provider, provider_model, tier, unit,
    sum(quantity)                                 AS quantity,
    sum(usd)                                      AS usd,
    -- For a million of tokens and for one of anything else, as the rates are.
    min(rate_usd)                                 AS lowest_rate_usd,
    max(rate_usd)                                 AS highest_rate_usd,
    round(sum(rate_usd * quantity) / sum(quantity), 12) AS average_rate_usd
FROM cost_components
GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW unit_prices_paid IS
    'What was paid for each unit, by UTC day, provider, model and service tier: quantity, dollars, and the rates. Before multipliers and discounts.';

CREATE VIEW cache_savings AS
SELECT
    c.day, c.provider, c.provider_model, c.key_id, c.key_name,
    sum(c.quantity)                                          AS cached_tokens,
    sum(c.usd)                                               AS cost_usd,
    sum(c.quantity * (plain.rate_usd - c.rate_usd) / 1000000) AS saved_usd
FROM cost_components c
JOIN LATERAL (
    -- What the tokens would have cost: as the others of the call, or as the sheet says when there were none.
    SELECT coalesce(
        (SELECT o.rate_usd FROM cost_components o WHERE o.attempt_id = c.attempt_id AND o.unit = 'input'),
        (SELECT (p.sheet #>> '{per_million,input}')::numeric FROM price_sheets p WHERE p.id = c.price_id)
    ) AS rate_usd
) AS plain ON true
WHERE c.unit = 'cached_input'
GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW cache_savings IS
    'Tokens that providers read from their caches, what they cost, and how much less that was than the rate for input, by UTC day, provider, model and key. What it cost to write them is in unit_prices_paid.';

CREATE VIEW cost_of_retries AS
WITH tried AS (
    SELECT
        day, model, request_id,
        count(*)                                              AS calls,
        sum(cost_usd)                                         AS cost_usd,
        coalesce(sum(cost_usd) FILTER (WHERE NOT hedge AND outcome IS DISTINCT FROM 'answered'), 0) AS lost_usd,
        bool_or(outcome = 'answered')                         AS answered
    FROM ledger
    WHERE state <> 'open'
    GROUP BY 1, 2, 3
)
SELECT
    day, model,
    count(*) FILTER (WHERE calls > 1)            AS requests_tried_again,
    sum(calls - 1)                               AS further_calls,
    count(*) FILTER (WHERE NOT answered)         AS never_answered,
    coalesce(sum(lost_usd), 0)                   AS lost_usd,
    coalesce(sum(cost_usd), 0)                   AS cost_usd
FROM tried
GROUP BY 1, 2;
COMMENT ON VIEW cost_of_retries IS
    'What calls cost that brought no answer, by UTC day and model: how many requests took several calls, how many never had an answer, and the dollars of calls that failed, broke off or were cancelled. Hedges are in cost_of_hedges.';

CREATE VIEW cost_forecast AS
SELECT
    date_trunc('month', now() AT TIME ZONE 'UTC')::date AS month,
    organisation, team,
    sum(cost_usd)                                       AS spent_usd,
    round(sum(cost_usd) * extract(epoch FROM whole.length)::numeric / extract(epoch FROM whole.past)::numeric, 6) AS forecast_usd
FROM ledger
CROSS JOIN (
    SELECT
        date_trunc('month', now() AT TIME ZONE 'UTC') AS start,
        date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month'
            - date_trunc('month', now() AT TIME ZONE 'UTC') AS length,
        greatest(now() AT TIME ZONE 'UTC' - date_trunc('month', now() AT TIME ZONE 'UTC'), interval '1 hour') AS past
) AS whole
WHERE state <> 'open' AND started_at >= whole.start AT TIME ZONE 'UTC'
GROUP BY 2, 3, whole.length, whole.past;
COMMENT ON VIEW cost_forecast IS
    'What this UTC month has cost so far, by organisation and team, and what it comes to if the rest goes on as it began.';

CREATE VIEW focus_export AS
WITH parts AS (
    SELECT
        l.day, l.provider, l.provider_model, l.model, l.organisation, l.team, l.key_name, c.unit, c.tier, c.quantity, c.rate_usd,
        -- What a call is billed, multipliers and discounts included, in proportion to its parts.
        l.cost_usd * c.usd / sum(c.usd) OVER (PARTITION BY l.attempt_id) AS usd
    FROM ledger l JOIN cost_components c ON c.attempt_id = l.attempt_id
    WHERE l.cost_usd > 0 AND c.usd > 0
    UNION ALL
    -- Of some calls only the provider says the whole.
    SELECT
        l.day, l.provider, l.provider_model, l.model, l.organisation, l.team, l.key_name, 'call', 'standard', 1, l.cost_usd,
        l.cost_usd
    FROM ledger l
    WHERE l.cost_usd > 0 AND NOT EXISTS (SELECT FROM cost_components c WHERE c.attempt_id = l.attempt_id AND c.usd > 0)
)
SELECT
    sum(usd)                                                            AS "BilledCost",
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
    rate_usd                                                            AS "ContractedUnitPrice",
    coalesce(organisation, '')                                          AS "SubAccountId",
    jsonb_strip_nulls(jsonb_build_object('team', team, 'key', key_name, 'model', model)) AS "Tags"
FROM parts
GROUP BY day, provider, provider_model, unit, tier, rate_usd, organisation, team, key_name, model;
COMMENT ON VIEW focus_export IS
    'What was billed by UTC day, model and unit, with the columns of FinOps FOCUS; multipliers and discounts are in BilledCost. ContractedUnitPrice is for a million of tokens and for one of anything else.';
