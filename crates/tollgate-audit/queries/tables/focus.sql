-- The view focus_export, of one tenant or of all. Times as ISO 8601 has them.
SELECT ARRAY[
    trim_scale("BilledCost")::text,
    "BillingCurrency",
    to_char("BillingPeriodStart" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    to_char("BillingPeriodEnd" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    "ChargeCategory",
    to_char("ChargePeriodStart" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    to_char("ChargePeriodEnd" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    "ServiceCategory",
    "ServiceName",
    "ProviderName",
    "ResourceId",
    "SkuId",
    trim_scale("ConsumedQuantity")::text,
    "ConsumedUnit",
    coalesce(trim_scale("ContractedUnitPrice")::text, ''),
    "SubAccountId",
    "Tags"::text
] AS "cells!"
FROM focus_export
WHERE "ChargePeriodStart" >= $1::date::timestamp AT TIME ZONE 'UTC' AND "ChargePeriodStart" < $2::date::timestamp AT TIME ZONE 'UTC'
  AND ($3::text IS NULL OR "SubAccountId" = $3) AND ($4::text IS NULL OR "Tags" ->> 'team' = $4)
ORDER BY "ChargePeriodStart", "SkuId", 1
LIMIT $5 OFFSET $6
