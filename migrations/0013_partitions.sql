-- The ledger in partitions of a month, so that old months go at once; and the reports by day from the sums of 0011, so that they do not
-- grow with the ledger.
--
-- Attempts are partitioned by their ids, which begin with the time at which they were made: an id stays unique over all
-- partitions, and a row is found by it in one of them.

CREATE FUNCTION uuid_at(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

CREATE TABLE ledger_partitions (
    name  text        PRIMARY KEY,
    -- NULL: from always.
    began timestamptz,
    ends  timestamptz NOT NULL
);
COMMENT ON TABLE ledger_partitions IS 'The partitions of attempts, by the time at which their calls were made.';

-- What was there becomes the first partition.
ALTER TABLE attempt_corrections DROP CONSTRAINT attempt_corrections_attempt_id_fkey;
DROP TRIGGER attempts_complete_once ON attempts;
DROP TRIGGER attempts_no_delete ON attempts;
DROP TRIGGER attempts_no_truncate ON attempts;
DROP TRIGGER usage_of_new_attempts ON attempts;
DROP TRIGGER usage_of_completed_attempts ON attempts;
ALTER TABLE attempts RENAME TO attempts_first;
ALTER INDEX attempts_pkey RENAME TO attempts_first_pkey;
ALTER INDEX attempts_by_start RENAME TO attempts_first_by_start;
ALTER INDEX attempts_by_request RENAME TO attempts_first_by_request;
ALTER INDEX attempts_open_by_deadline RENAME TO attempts_first_open_by_deadline;

CREATE TABLE attempts (
    LIKE attempts_first INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    PRIMARY KEY (attempt_id),
    FOREIGN KEY (price_id) REFERENCES price_sheets
) PARTITION BY RANGE (attempt_id);
COMMENT ON TABLE attempts IS 'One row for each call to a provider. Read the view ledger instead: it includes corrections.';
CREATE INDEX attempts_by_start ON attempts (started_at);
CREATE INDEX attempts_by_request ON attempts (request_id);
CREATE INDEX attempts_open_by_deadline ON attempts (deadline_at) WHERE state = 'open';

DO $$
DECLARE
    ends timestamptz := (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    EXECUTE format('ALTER TABLE attempts ATTACH PARTITION attempts_first FOR VALUES FROM (MINVALUE) TO (%L)', uuid_at(ends));
    INSERT INTO ledger_partitions VALUES ('attempts_first', NULL, ends);
END $$;
-- For ids whose time is not that of a partition: of a worker whose clock is wrong by months.
CREATE TABLE attempts_stray PARTITION OF attempts DEFAULT;

CREATE TRIGGER attempts_complete_once BEFORE UPDATE ON attempts
    FOR EACH ROW EXECUTE FUNCTION attempts_complete_once();
CREATE TRIGGER attempts_no_delete BEFORE DELETE ON attempts
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER attempts_no_truncate BEFORE TRUNCATE ON attempts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER usage_of_new_attempts AFTER INSERT ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_add_attempts();
CREATE TRIGGER usage_of_completed_attempts AFTER UPDATE ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_add_attempts();

-- Makes the partitions of the months up to the one of this time; how many were missing.
CREATE FUNCTION ledger_make_partitions(up_to timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    starts timestamptz;
    finish timestamptz;
    month text;
    made integer := 0;
BEGIN
    -- One process at a time.
    PERFORM pg_advisory_xact_lock(hashtextextended('ledger_make_partitions', 0));
    SELECT max(ends) INTO starts FROM ledger_partitions;
    WHILE starts <= up_to LOOP
        finish := (starts AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
        month := to_char(starts AT TIME ZONE 'UTC', '"attempts_"YYYY_MM');
        EXECUTE format('CREATE TABLE %I PARTITION OF attempts FOR VALUES FROM (%L) TO (%L)', month, uuid_at(starts),
                       uuid_at(finish));
        EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()',
                       month || '_no_truncate', month);
        INSERT INTO ledger_partitions VALUES (month, starts, finish);
        starts := finish;
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
CREATE TRIGGER attempts_first_no_truncate BEFORE TRUNCATE ON attempts_first
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER attempts_stray_no_truncate BEFORE TRUNCATE ON attempts_stray
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
SELECT ledger_make_partitions(now() + interval '1 month');

-- What belongs to a call may go when the call has gone, and the rest never.
CREATE FUNCTION corrections_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND NOT EXISTS (SELECT FROM attempts a WHERE a.attempt_id = OLD.attempt_id) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% of % is refused: the ledger is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
DROP TRIGGER attempt_corrections_append_only ON attempt_corrections;
CREATE TRIGGER attempt_corrections_append_only BEFORE UPDATE OR DELETE ON attempt_corrections
    FOR EACH ROW EXECUTE FUNCTION corrections_refuse_change();

-- Requests may go with the month of their calls.
CREATE FUNCTION requests_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.accepted_at < nullif(current_setting('tollgate.forget_before', true), '')::timestamptz THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% of % is refused: the ledger is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
DROP TRIGGER requests_append_only ON requests;
CREATE TRIGGER requests_append_only BEFORE UPDATE OR DELETE ON requests
    FOR EACH ROW EXECUTE FUNCTION requests_refuse_change();

-- Forgets the calls and requests of the months that lie wholly before this time: how many months. What they cost stays in the sums.
CREATE FUNCTION ledger_forget(before timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
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
        PERFORM set_config('tollgate.forget_before', latest::text, true);
        DELETE FROM requests WHERE accepted_at < latest;
        PERFORM set_config('tollgate.forget_before', '', true);
    END IF;
    RETURN forgotten;
END $$;

-- The same views as before, of the new tables.
CREATE OR REPLACE VIEW ledger AS
SELECT
    a.attempt_id, a.request_id, a.generation, a.retry, a.provider, a.provider_model, a.model, a.key_id, a.key_name,
    a.tags, a.dialect, a.stream, a.started_at, a.deadline_at, b.abandoned_at,
    CASE WHEN c.attempt_id IS NULL THEN a.state ELSE 'settled' END AS state,
    coalesce(a.outcome, c.outcome) AS outcome,
    coalesce(a.error_code, c.error_code) AS error_code,
    coalesce(a.provider_status, c.provider_status) AS provider_status,
    coalesce(a.served_model, c.served_model) AS served_model,
    a.input_tokens + coalesce(c.input_tokens_delta, 0) AS input_tokens,
    a.cached_input_tokens + coalesce(c.cached_input_tokens_delta, 0) AS cached_input_tokens,
    a.output_tokens + coalesce(c.output_tokens_delta, 0) AS output_tokens,
    a.reasoning_tokens + coalesce(c.reasoning_tokens_delta, 0) AS reasoning_tokens,
    coalesce(c.usage_source, a.usage_source) AS usage_source,
    CASE WHEN c.attempt_id IS NULL THEN a.price_id ELSE c.price_id END AS price_id,
    CASE WHEN c.attempt_id IS NULL THEN a.cost_usd
         ELSE coalesce(a.cost_usd, 0) + c.cost_usd_delta END AS cost_usd,
    coalesce(a.ended_at, c.ended_at) AS ended_at,
    coalesce(a.first_token_ms, c.first_token_ms) AS first_token_ms,
    c.attempt_id IS NOT NULL AS corrected,
    (a.started_at AT TIME ZONE 'UTC')::date AS day,
    a.operation,
    a.cache_write_input_tokens + coalesce(c.cache_write_input_tokens_delta, 0) AS cache_write_input_tokens,
    a.cache_write_1h_input_tokens + coalesce(c.cache_write_1h_input_tokens_delta, 0) AS cache_write_1h_input_tokens,
    a.audio_input_tokens + coalesce(c.audio_input_tokens_delta, 0) AS audio_input_tokens,
    a.audio_output_tokens + coalesce(c.audio_output_tokens_delta, 0) AS audio_output_tokens,
    a.web_searches + coalesce(c.web_searches_delta, 0) AS web_searches,
    a.hedge,
    CASE WHEN c.attempt_id IS NULL THEN a.cost_breakdown ELSE c.cost_breakdown END AS cost_breakdown,
    a.organisation,
    a.team,
    a.end_user
FROM attempts a
LEFT JOIN attempt_corrections c ON c.attempt_id = a.attempt_id
LEFT JOIN abandonments b ON b.attempt_id = a.attempt_id;

CREATE OR REPLACE VIEW cost_by_day AS
SELECT
    (slot AT TIME ZONE 'UTC')::date AS day,
    sum(calls)::bigint          AS calls,
    sum(input_tokens)           AS input_tokens,
    sum(output_tokens)          AS output_tokens,
    sum(cost_usd)               AS cost_usd,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(orphaned_calls)::bigint AS orphaned_calls
FROM usage_slots
GROUP BY 1;

CREATE OR REPLACE VIEW cost_by_hour AS
SELECT
    date_trunc('hour', slot)    AS hour,
    sum(calls)::bigint          AS calls,
    sum(input_tokens)           AS input_tokens,
    sum(output_tokens)          AS output_tokens,
    sum(cost_usd)               AS cost_usd,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(orphaned_calls)::bigint AS orphaned_calls
FROM usage_slots
GROUP BY 1;

CREATE OR REPLACE VIEW cost_by_model AS
SELECT
    (slot AT TIME ZONE 'UTC')::date AS day,
    model,
    sum(calls)::bigint          AS calls,
    sum(input_tokens)           AS input_tokens,
    sum(output_tokens)          AS output_tokens,
    sum(cost_usd)               AS cost_usd,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(orphaned_calls)::bigint AS orphaned_calls
FROM usage_slots
GROUP BY 1, 2;

CREATE OR REPLACE VIEW cost_by_provider AS
SELECT
    (slot AT TIME ZONE 'UTC')::date AS day,
    provider,
    sum(calls)::bigint          AS calls,
    sum(input_tokens)           AS input_tokens,
    sum(output_tokens)          AS output_tokens,
    sum(cost_usd)               AS cost_usd,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(orphaned_calls)::bigint AS orphaned_calls
FROM usage_slots
GROUP BY 1, 2;

CREATE OR REPLACE VIEW cost_by_key AS
SELECT
    (slot AT TIME ZONE 'UTC')::date AS day,
    key_id,
    key_name,
    sum(calls)::bigint          AS calls,
    sum(input_tokens)           AS input_tokens,
    sum(output_tokens)          AS output_tokens,
    sum(cost_usd)               AS cost_usd,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(orphaned_calls)::bigint AS orphaned_calls
FROM usage_slots
GROUP BY 1, 2, 3;

CREATE OR REPLACE VIEW cost_by_organisation AS
SELECT
    (slot AT TIME ZONE 'UTC')::date AS day,
    nullif(organisation, '')    AS organisation,
    sum(calls)::bigint          AS calls,
    sum(input_tokens)           AS input_tokens,
    sum(output_tokens)          AS output_tokens,
    sum(cost_usd)               AS cost_usd,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(orphaned_calls)::bigint AS orphaned_calls
FROM usage_slots
GROUP BY 1, 2;

CREATE OR REPLACE VIEW cost_by_team AS
SELECT
    (slot AT TIME ZONE 'UTC')::date AS day,
    nullif(organisation, '')    AS organisation,
    nullif(team, '')            AS team,
    sum(calls)::bigint          AS calls,
    sum(input_tokens)           AS input_tokens,
    sum(output_tokens)          AS output_tokens,
    sum(cost_usd)               AS cost_usd,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(orphaned_calls)::bigint AS orphaned_calls
FROM usage_slots
GROUP BY 1, 2, 3;

CREATE OR REPLACE VIEW cost_by_tag AS
SELECT
    (slot AT TIME ZONE 'UTC')::date AS day,
    name || '=' || value        AS tag,
    sum(calls)::bigint          AS calls,
    sum(input_tokens)           AS input_tokens,
    sum(output_tokens)          AS output_tokens,
    sum(cost_usd)               AS cost_usd,
    sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(orphaned_calls)::bigint AS orphaned_calls
FROM usage_tags
GROUP BY 1, 2;

CREATE OR REPLACE VIEW cost_forecast AS
SELECT
    date_trunc('month', now() AT TIME ZONE 'UTC')::date AS month,
    nullif(organisation, '') AS organisation, nullif(team, '') AS team,
    sum(cost_usd)                                       AS spent_usd,
    round(sum(cost_usd) * extract(epoch FROM whole.length)::numeric / extract(epoch FROM whole.past)::numeric, 6) AS forecast_usd
FROM usage_slots
CROSS JOIN (
    SELECT
        date_trunc('month', now() AT TIME ZONE 'UTC') AS start,
        date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month'
            - date_trunc('month', now() AT TIME ZONE 'UTC') AS length,
        greatest(now() AT TIME ZONE 'UTC' - date_trunc('month', now() AT TIME ZONE 'UTC'), interval '1 hour') AS past
) AS whole
WHERE slot >= whole.start AT TIME ZONE 'UTC'
GROUP BY 2, 3, whole.length, whole.past;
