-- Every attempt with its corrections, for a comparison with the provider's own log.
SELECT
    attempt_id AS "attempt_id!", request_id AS "request_id!", state AS "state!", outcome, usage_source, input_tokens,
    output_tokens
FROM ledger
