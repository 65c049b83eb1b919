-- Costs by the callers' own users from sums by day, and what goes wrong by indexes of just that: so that these reports, too, do not
-- grow with the calls that went well.

CREATE TABLE usage_users (
    day            date    NOT NULL,
    -- Empty for what has none, so that it can be part of the key.
    organisation   text    NOT NULL,
    team           text    NOT NULL,
    -- As the caller calls him; empty for calls that name none.
    end_user       text    NOT NULL,
    calls          bigint  NOT NULL,
    unpriced_calls bigint  NOT NULL,
    orphaned_calls bigint  NOT NULL,
    input_tokens   numeric NOT NULL,
    output_tokens  numeric NOT NULL,
    cost_usd       numeric NOT NULL,
    PRIMARY KEY (day, end_user, organisation, team)
);
COMMENT ON TABLE usage_users IS
    'Completed calls, tokens and cost by UTC day, tenant and the callers'' own users, corrections included. Kept in the transaction that completes a call, and dropped with the calls.';

-- Adds calls that have just completed to the sums.
CREATE FUNCTION usage_add_users() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_users
    SELECT
        (started_at AT TIME ZONE 'UTC')::date, coalesce(organisation, ''), coalesce(team, ''), coalesce(end_user, ''), count(*),
        count(*) FILTER (WHERE cost_usd IS NULL), count(*) FILTER (WHERE state = 'orphaned'), sum(input_tokens),
        sum(output_tokens), coalesce(sum(cost_usd), 0)
    FROM changed WHERE state <> 'open'
    GROUP BY 1, 2, 3, 4
    ORDER BY 1, 4, 2, 3
    ON CONFLICT (day, end_user, organisation, team) DO UPDATE SET
        calls = usage_users.calls + excluded.calls,
        unpriced_calls = usage_users.unpriced_calls + excluded.unpriced_calls,
        orphaned_calls = usage_users.orphaned_calls + excluded.orphaned_calls,
        input_tokens = usage_users.input_tokens + excluded.input_tokens,
        output_tokens = usage_users.output_tokens + excluded.output_tokens,
        cost_usd = usage_users.cost_usd + excluded.cost_usd;
    RETURN NULL;
END $$;

-- Adds corrections of completed calls to the sums.
CREATE FUNCTION usage_add_corrected_users() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_users
    SELECT
        (a.started_at AT TIME ZONE 'UTC')::date, coalesce(a.organisation, ''), coalesce(a.team, ''), coalesce(a.end_user, ''), 0,
        -- The true cost has no price, or has one where the estimate had none.
        count(*) FILTER (WHERE c.cost_usd_delta IS NULL AND a.cost_usd IS NOT NULL)
            - count(*) FILTER (WHERE c.cost_usd_delta IS NOT NULL AND a.cost_usd IS NULL),
        -count(*), sum(c.input_tokens_delta), sum(c.output_tokens_delta),
        coalesce(sum(coalesce(c.cost_usd_delta, -coalesce(a.cost_usd, 0))), 0)
    FROM changed c JOIN attempts a ON a.attempt_id = c.attempt_id
    GROUP BY 1, 2, 3, 4
    ORDER BY 1, 4, 2, 3
    ON CONFLICT (day, end_user, organisation, team) DO UPDATE SET
        unpriced_calls = usage_users.unpriced_calls + excluded.unpriced_calls,
        orphaned_calls = usage_users.orphaned_calls + excluded.orphaned_calls,
        input_tokens = usage_users.input_tokens + excluded.input_tokens,
        output_tokens = usage_users.output_tokens + excluded.output_tokens,
        cost_usd = usage_users.cost_usd + excluded.cost_usd;
    RETURN NULL;
END $$;

CREATE TRIGGER usage_users_of_new_attempts AFTER INSERT ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_add_users();
CREATE TRIGGER usage_users_of_completed_attempts AFTER UPDATE ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_add_users();
CREATE TRIGGER usage_users_of_corrections AFTER INSERT ON attempt_corrections
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_add_corrected_users();

-- The users of whole days anew, from the ledger.
CREATE FUNCTION usage_rebuild_users(first date, last date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE attempts, attempt_corrections IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM usage_users WHERE day BETWEEN first AND last;
    INSERT INTO usage_users
    SELECT
        day, coalesce(organisation, ''), coalesce(team, ''), coalesce(end_user, ''), count(*), count(*) FILTER (WHERE cost_usd IS NULL),
        count(*) FILTER (WHERE state = 'orphaned'), sum(input_tokens), sum(output_tokens), coalesce(sum(cost_usd), 0)
    FROM ledger
    WHERE state <> 'open' AND started_at >= first::timestamp AT TIME ZONE 'UTC'
      AND started_at < (last::timestamp + interval '1 day') AT TIME ZONE 'UTC'
    GROUP BY 1, 2, 3, 4;
END $$;

CREATE OR REPLACE FUNCTION usage_rebuild(since timestamptz, until timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT usage_rebuild_slots(since, until);
    SELECT rebuild.*
    FROM (SELECT (since AT TIME ZONE 'UTC')::date AS first, ((until - interval '1 microsecond') AT TIME ZONE 'UTC')::date AS last)
        AS days,
        LATERAL (SELECT usage_rebuild_parts(first, last), usage_rebuild_users(first, last)) AS rebuild;
$$;

SELECT usage_rebuild_users('-infinity', 'infinity');

-- Forgets the calls and requests of the months that lie wholly before this time, and who the users were: how many months. What they cost
-- stays in the other sums.
CREATE OR REPLACE FUNCTION ledger_forget(before timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    old record;
    latest timestamptz;
    forgotten integer := 0;
BEGIN
    FOR old IN SELECT name, ends FROM ledger_partitions WHERE ends <= before ORDER BY ends LOOP
        EXECUTE format('DROP TABLE %I', old.name);
        DELETE FROM ledger_partitions WHERE name = old.name;
        latest := old.ends;
        forgotten := forgotten + 1;
    END LOOP;
    IF forgotten > 0 THEN
        DELETE FROM attempt_corrections c WHERE attempt_id < uuid_at(latest)
            AND NOT EXISTS (SELECT FROM attempts a WHERE a.attempt_id = c.attempt_id);
        DELETE FROM abandonments WHERE attempt_id < uuid_at(latest);
        DELETE FROM usage_users WHERE day < (latest AT TIME ZONE 'UTC')::date;
        PERFORM set_config('tollgate.forget_before', latest::text, true);
        DELETE FROM requests WHERE accepted_at < latest;
        PERFORM set_config('tollgate.forget_before', '', true);
    END IF;
    RETURN forgotten;
END $$;

CREATE OR REPLACE VIEW cost_by_user AS
SELECT
    day,
    nullif(organisation, '')    AS organisation,
    nullif(team, '')            AS team,
    end_user,
    sum(calls)::bigint          AS calls,
    sum(input_tokens)           AS input_tokens,
    sum(output_tokens)          AS output_tokens,
    sum(cost_usd)               AS cost_usd,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(orphaned_calls)::bigint AS orphaned_calls
FROM usage_users
WHERE end_user <> ''
GROUP BY 1, 2, 3, 4;

-- What went wrong: small, unless much does.
CREATE INDEX attempts_unpriced ON attempts (started_at) WHERE state <> 'open' AND cost_usd IS NULL;
CREATE INDEX attempts_orphaned ON attempts (started_at) WHERE state = 'orphaned';
CREATE INDEX attempts_hedged ON attempts (started_at) WHERE hedge;
CREATE INDEX attempts_beside ON attempts (started_at)
    WHERE state <> 'open' AND (retry > 0 OR generation > 0 OR hedge OR outcome IS DISTINCT FROM 'answered');
CREATE INDEX attempt_corrections_unpriced ON attempt_corrections (attempt_id) WHERE cost_usd_delta IS NULL;

CREATE OR REPLACE VIEW unpriced_calls AS
SELECT
    day, provider, provider_model, coalesce(served_model, provider_model) AS served_model, key_id, key_name,
    count(*)                        AS calls,
    coalesce(sum(input_tokens), 0)  AS input_tokens,
    coalesce(sum(output_tokens), 0) AS output_tokens,
    organisation, team
FROM ledger
WHERE state <> 'open' AND cost_usd IS NULL AND attempt_id IN (
    SELECT attempt_id FROM attempts WHERE state <> 'open' AND cost_usd IS NULL
    UNION ALL
    SELECT attempt_id FROM attempt_corrections WHERE cost_usd_delta IS NULL
)
GROUP BY 1, 2, 3, 4, 5, 6, 10, 11;

CREATE OR REPLACE VIEW orphaned_calls AS
SELECT
    day, provider, model, key_id, key_name,
    count(*)                        AS calls,
    coalesce(sum(input_tokens), 0)  AS input_tokens,
    coalesce(sum(output_tokens), 0) AS output_tokens,
    coalesce(sum(cost_usd), 0)      AS cost_usd,
    organisation, team
FROM ledger
WHERE state = 'orphaned' AND attempt_id IN (SELECT attempt_id FROM attempts WHERE state = 'orphaned')
GROUP BY 1, 2, 3, 4, 5, 10, 11;

-- Of all calls only those are read that are not a request's first, or not answered; and of requests whose first call was answered and that
-- had others, that one. A request whose only call was answered adds nothing but its cost.
CREATE VIEW cost_of_retries_by_team AS
WITH beside AS MATERIALIZED (
    SELECT
        (a.started_at AT TIME ZONE 'UTC')::date AS day, coalesce(a.organisation, '') AS organisation, coalesce(a.team, '') AS team,
        a.model, a.request_id, a.hedge,
        a.retry = 0 AND a.generation = 0 AND NOT a.hedge AS first,
        coalesce(a.outcome, c.outcome)                   AS outcome,
        CASE WHEN c.attempt_id IS NULL THEN a.cost_usd ELSE coalesce(a.cost_usd, 0) + c.cost_usd_delta END AS cost_usd
    FROM attempts a LEFT JOIN attempt_corrections c ON c.attempt_id = a.attempt_id
    WHERE a.state <> 'open'
      AND (a.retry > 0 OR a.generation > 0 OR a.hedge OR a.outcome IS DISTINCT FROM 'answered')
), answered_at_first AS (
    SELECT
        (f.started_at AT TIME ZONE 'UTC')::date, coalesce(f.organisation, ''), coalesce(f.team, ''), f.model, f.request_id, false, true,
        f.outcome, f.cost_usd
    FROM (SELECT request_id FROM beside GROUP BY 1 HAVING NOT bool_or(first)) AS b
    JOIN attempts f USING (request_id)
    WHERE f.outcome = 'answered' AND f.retry = 0 AND f.generation = 0 AND NOT f.hedge
), tried AS (
    SELECT
        day, organisation, team, model, request_id,
        count(*)                                              AS calls,
        coalesce(sum(cost_usd) FILTER (WHERE NOT hedge AND outcome IS DISTINCT FROM 'answered'), 0) AS lost_usd,
        bool_or(outcome = 'answered')                         AS answered
    FROM (SELECT * FROM beside UNION ALL SELECT * FROM answered_at_first) AS calls
    GROUP BY 1, 2, 3, 4, 5
), sums AS (
    SELECT
        day, organisation, team, model,
        count(*) FILTER (WHERE calls > 1)            AS requests_tried_again,
        sum(calls - 1)                               AS further_calls,
        count(*) FILTER (WHERE NOT answered)         AS never_answered,
        sum(lost_usd)                                AS lost_usd
    FROM tried
    GROUP BY 1, 2, 3, 4
), whole AS (
    SELECT (slot AT TIME ZONE 'UTC')::date AS day, organisation, team, model, sum(cost_usd) AS cost_usd
    FROM usage_slots
    GROUP BY 1, 2, 3, 4
)
SELECT
    day, nullif(organisation, '')                AS organisation, nullif(team, '') AS team, model,
    coalesce(requests_tried_again, 0)            AS requests_tried_again,
    coalesce(further_calls, 0)                   AS further_calls,
    coalesce(never_answered, 0)                  AS never_answered,
    coalesce(lost_usd, 0)                        AS lost_usd,
    cost_usd
FROM whole LEFT JOIN sums USING (day, organisation, team, model)
-- Of days whose calls are forgotten nothing of it is known.
WHERE day >= (
    SELECT coalesce((min(coalesce(began, '-infinity')) AT TIME ZONE 'UTC')::date, '-infinity') FROM ledger_partitions
);
COMMENT ON VIEW cost_of_retries_by_team IS 'cost_of_retries, by organisation and team too.';

CREATE OR REPLACE VIEW cost_of_retries AS
SELECT
    day, model,
    sum(requests_tried_again)::bigint AS requests_tried_again,
    sum(further_calls)                AS further_calls,
    sum(never_answered)::bigint       AS never_answered,
    sum(lost_usd)                     AS lost_usd,
    sum(cost_usd)                     AS cost_usd
FROM cost_of_retries_by_team
GROUP BY 1, 2;

CREATE VIEW cost_of_hedges_by_team AS
WITH calls AS (
    SELECT
        l.day, l.organisation, l.team, l.model, l.request_id,
        count(*)                                               AS calls,
        count(*) FILTER (WHERE l.hedge)                        AS hedges,
        bool_or(l.hedge AND l.outcome = 'answered')            AS won,
        sum(l.cost_usd)                                        AS cost_usd,
        -- What the request would have cost alone is what its cheapest whole answer did.
        min(l.cost_usd) FILTER (WHERE l.outcome = 'answered')  AS answer_usd
    FROM ledger l
    WHERE l.state <> 'open' AND l.request_id IN (SELECT request_id FROM attempts WHERE hedge)
    GROUP BY 1, 2, 3, 4, 5
)
SELECT
    day, organisation, team, model,
    count(*)                            AS hedged_requests,
    sum(hedges)                         AS hedges,
    count(*) FILTER (WHERE won)         AS answered_by_hedge,
    sum(cost_usd)                       AS cost_usd,
    sum(cost_usd - coalesce(answer_usd, 0)) AS extra_usd
FROM calls
GROUP BY 1, 2, 3, 4;
COMMENT ON VIEW cost_of_hedges_by_team IS 'cost_of_hedges, by organisation and team too.';

CREATE OR REPLACE VIEW cost_of_hedges AS
SELECT
    day, model,
    sum(hedged_requests)::bigint   AS hedged_requests,
    sum(hedges)                    AS hedges,
    sum(answered_by_hedge)::bigint AS answered_by_hedge,
    sum(cost_usd)                  AS cost_usd,
    sum(extra_usd)                 AS extra_usd
FROM cost_of_hedges_by_team
GROUP BY 1, 2;
