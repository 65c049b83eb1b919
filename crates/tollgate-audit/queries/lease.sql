-- Takes back and grants slices of limits, in the order given.
SELECT taken.valid, taken.granted, taken.lasts, taken.amount, taken.used, taken.free, taken.resets
FROM UNNEST($1::uuid[], $2::uuid[], $4::numeric[], $5::numeric[], $6::numeric[], $7::boolean[])
    WITH ORDINALITY AS asked (limit_id, lease_id, returned, wanted, needed, last, place)
CROSS JOIN LATERAL lease_take(limit_id, lease_id, $3, returned, wanted, needed, last, $8) AS taken
ORDER BY place
