-- Every kind of token that some provider prices apart, what a call was for, and list prices of two more providers.
--
-- A price without a rate for a kind (NULL) leaves a call that used that kind unpriced, rather than priced wrongly.

ALTER TABLE prices
    ADD COLUMN cache_write_usd_per_mtok    numeric,
    ADD COLUMN cache_write_1h_usd_per_mtok numeric,
    ADD COLUMN audio_input_usd_per_mtok    numeric,
    ADD COLUMN audio_output_usd_per_mtok   numeric,
    -- For each search of the web that the provider made.
    ADD COLUMN web_search_usd              numeric,
    ADD CONSTRAINT prices_range_of_kinds CHECK (
        cache_write_usd_per_mtok >= 0 AND cache_write_usd_per_mtok < 1000000 AND scale(cache_write_usd_per_mtok) <= 9
        AND cache_write_1h_usd_per_mtok >= 0 AND cache_write_1h_usd_per_mtok < 1000000
        AND scale(cache_write_1h_usd_per_mtok) <= 9
        AND audio_input_usd_per_mtok >= 0 AND audio_input_usd_per_mtok < 1000000
        AND scale(audio_input_usd_per_mtok) <= 9
        AND audio_output_usd_per_mtok >= 0 AND audio_output_usd_per_mtok < 1000000
        AND scale(audio_output_usd_per_mtok) <= 9
        AND web_search_usd >= 0 AND web_search_usd < 1000 AND scale(web_search_usd) <= 9
    );

ALTER TABLE attempts
    ADD COLUMN operation                   text NOT NULL DEFAULT 'chat',
    ADD COLUMN cache_write_input_tokens    bigint,
    ADD COLUMN cache_write_1h_input_tokens bigint,
    ADD COLUMN audio_input_tokens          bigint,
    ADD COLUMN audio_output_tokens         bigint,
    ADD COLUMN web_searches                bigint;

-- Rows completed so far had none of these: no provider spoken to until now reported any.
ALTER TABLE attempts DISABLE TRIGGER attempts_complete_once;
UPDATE attempts SET
    cache_write_input_tokens = 0, cache_write_1h_input_tokens = 0, audio_input_tokens = 0, audio_output_tokens = 0,
    web_searches = 0
WHERE state <> 'open';
ALTER TABLE attempts ENABLE TRIGGER attempts_complete_once;

ALTER TABLE attempts
    ALTER COLUMN operation DROP DEFAULT,
    ADD CONSTRAINT attempts_operation CHECK (operation IN ('chat', 'embed', 'count_tokens')),
    ADD CONSTRAINT attempts_kinds_not_negative CHECK (
        cache_write_input_tokens >= 0 AND cache_write_1h_input_tokens >= 0 AND audio_input_tokens >= 0
        AND audio_output_tokens >= 0 AND web_searches >= 0
    ),
    ADD CONSTRAINT attempts_kinds_when_completed CHECK (
        CASE state
            WHEN 'open' THEN
                num_nonnulls(cache_write_input_tokens, cache_write_1h_input_tokens, audio_input_tokens,
                             audio_output_tokens, web_searches) = 0
            ELSE
                num_nulls(cache_write_input_tokens, cache_write_1h_input_tokens, audio_input_tokens,
                          audio_output_tokens, web_searches) = 0
        END
    );

ALTER TABLE attempt_corrections
    ADD COLUMN cache_write_input_tokens_delta    bigint NOT NULL DEFAULT 0,
    ADD COLUMN cache_write_1h_input_tokens_delta bigint NOT NULL DEFAULT 0,
    ADD COLUMN audio_input_tokens_delta          bigint NOT NULL DEFAULT 0,
    ADD COLUMN audio_output_tokens_delta         bigint NOT NULL DEFAULT 0,
    ADD COLUMN web_searches_delta                bigint NOT NULL DEFAULT 0;
ALTER TABLE attempt_corrections
    ALTER COLUMN cache_write_input_tokens_delta DROP DEFAULT,
    ALTER COLUMN cache_write_1h_input_tokens_delta DROP DEFAULT,
    ALTER COLUMN audio_input_tokens_delta DROP DEFAULT,
    ALTER COLUMN audio_output_tokens_delta DROP DEFAULT,
    ALTER COLUMN web_searches_delta DROP DEFAULT;

-- Compared as whole rows but for what completes, so that no column that is added later can be forgotten here.
CREATE OR REPLACE FUNCTION attempts_complete_once() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    completing CONSTANT text[] := ARRAY[
        'state', 'outcome', 'error_code', 'provider_status', 'served_model', 'input_tokens', 'cached_input_tokens',
        'cache_write_input_tokens', 'cache_write_1h_input_tokens', 'audio_input_tokens', 'output_tokens',
        'reasoning_tokens', 'audio_output_tokens', 'web_searches', 'usage_source', 'price_id', 'cost_usd', 'ended_at',
        'first_token_ms'];
BEGIN
    IF OLD.state <> 'open' OR NEW.state = 'open'
       OR to_jsonb(NEW) - completing IS DISTINCT FROM to_jsonb(OLD) - completing
    THEN
        RAISE EXCEPTION 'attempt % is immutable: a % row can only be completed, and only once', OLD.attempt_id, OLD.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION prices_end_once_without_overlap() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.valid_to IS NOT NULL
        OR to_jsonb(NEW) - 'valid_to' IS DISTINCT FROM to_jsonb(OLD) - 'valid_to')
    THEN
        RAISE EXCEPTION 'price % is immutable: only valid_to can be set, and only once', OLD.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    -- Two transactions that each saw no overlap must not both commit.
    PERFORM pg_advisory_xact_lock(hashtextextended(NEW.provider || chr(10) || NEW.model, 0));
    IF EXISTS (
        SELECT FROM prices other
        WHERE other.provider = NEW.provider AND other.model = NEW.model AND other.id <> NEW.id
          AND other.valid_from <> NEW.valid_from
          AND tstzrange(other.valid_from, other.valid_to) && tstzrange(NEW.valid_from, NEW.valid_to)
    ) THEN
        RAISE EXCEPTION 'a price of % for % holds in part of that time already', NEW.provider, NEW.model
            USING ERRCODE = 'exclusion_violation';
    END IF;
    RETURN NEW;
END $$;

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
    a.web_searches + coalesce(c.web_searches_delta, 0) AS web_searches
FROM attempts a
LEFT JOIN attempt_corrections c ON c.attempt_id = a.attempt_id
LEFT JOIN abandonments b ON b.attempt_id = a.attempt_id;

-- The simulator's own models get a rate for every kind.
ALTER TABLE prices DISABLE TRIGGER prices_end_once_without_overlap;
UPDATE prices SET
    cache_write_usd_per_mtok = input_usd_per_mtok * 1.25, cache_write_1h_usd_per_mtok = input_usd_per_mtok * 2,
    audio_input_usd_per_mtok = input_usd_per_mtok * 4, audio_output_usd_per_mtok = output_usd_per_mtok * 4,
    web_search_usd = 0.01
WHERE provider = 'simulator' AND source = 'simulator';
ALTER TABLE prices ENABLE TRIGGER prices_end_once_without_overlap;

-- For providers named "anthropic" and "gemini", as in 0003_prices.sql. Models with a dearer tier for long prompts are
-- priced up to it; searches of models that bill them by prompt have no rate, because a call does not report those.
INSERT INTO prices (provider, model, valid_from, input_usd_per_mtok, cached_input_usd_per_mtok, output_usd_per_mtok,
                    max_input_tokens, cache_write_usd_per_mtok, cache_write_1h_usd_per_mtok, audio_input_usd_per_mtok,
                    web_search_usd, source)
SELECT provider, model, '2025-01-01T00:00:00Z', input, cached, output, longest, cache_write, cache_write_1h, audio,
       search, 'list price, autumn 2026'
FROM (VALUES
    ('anthropic', 'claude-fable-5', 10, 1::numeric, 50, NULL::bigint, 12.5::numeric, 20::numeric, NULL::numeric, 0.01::numeric),
    ('anthropic', 'claude-fable-5-1', 10, 0.25, 50, NULL, 12.5, 20, NULL, 0.01),
    ('anthropic', 'claude-haiku-4-5', 1, 0.1, 5, NULL, 1.25, 2, NULL, 0.01),
    ('anthropic', 'claude-haiku-4-5-20251001', 1, 0.1, 5, NULL, 1.25, 2, NULL, 0.01),
    ('anthropic', 'claude-haiku-5-5', 0.1, 0.01, 0.5, 100000, 0.125, 0.2, NULL, 0.01),
    ('anthropic', 'claude-mythos-5', 10, 1, 50, NULL, 12.5, 20, NULL, 0.01),
    ('anthropic', 'claude-mythos-5-1', 10, 0.25, 50, NULL, 12.5, 20, NULL, 0.01),
    ('anthropic', 'claude-mythos-preview', 10, 1, 50, NULL, 12.5, 20, NULL, 0.01),
    ('anthropic', 'claude-opus-4-5', 5, 0.5, 25, NULL, 6.25, 10, NULL, 0.01),
    ('anthropic', 'claude-opus-4-5-20251101', 5, 0.5, 25, NULL, 6.25, 10, NULL, 0.01),
    ('anthropic', 'claude-opus-4-6', 5, 0.5, 25, NULL, 6.25, 10, NULL, 0.01),
    ('anthropic', 'claude-opus-4-6-20260205', 5, 0.5, 25, NULL, 6.25, 10, NULL, 0.01),
    ('anthropic', 'claude-opus-4-7', 5, 0.5, 25, NULL, 6.25, 10, NULL, 0.01),
    ('anthropic', 'claude-opus-4-7-20260416', 5, 0.5, 25, NULL, 6.25, 10, NULL, 0.01),
    ('anthropic', 'claude-opus-4-8', 5, 0.5, 25, NULL, 6.25, 10, NULL, 0.01),
    ('anthropic', 'claude-opus-5', 5, 0.5, 25, NULL, 6.25, 10, NULL, 0.01),
    ('anthropic', 'claude-opus-5-5', 4, 0.2, 20, NULL, 5, 8, NULL, 0.01),
    ('anthropic', 'claude-sonnet-4-5', 3, 0.3, 15, NULL, 3.75, 6, NULL, 0.01),
    ('anthropic', 'claude-sonnet-4-5-20250929', 3, 0.3, 15, NULL, 3.75, 6, NULL, 0.01),
    ('anthropic', 'claude-sonnet-4-6', 3, 0.3, 15, NULL, 3.75, 6, NULL, 0.01),
    ('anthropic', 'claude-sonnet-5', 2, 0.2, 10, NULL, 2.5, 4, NULL, 0.01),
    ('anthropic', 'claude-sonnet-5-5', 2, 0.1, 10, NULL, 2.5, 4, NULL, 0.01),
    ('gemini', 'gemini-2.5-flash', 0.3, 0.03, 2.5, NULL, NULL, NULL, 1, NULL),
    ('gemini', 'gemini-2.5-flash-lite', 0.1, 0.01, 0.4, NULL, NULL, NULL, 0.3, NULL),
    ('gemini', 'gemini-2.5-pro', 1.25, 0.125, 10, 200000, NULL, NULL, 1.25, NULL),
    ('gemini', 'gemini-3-flash-preview', 0.5, 0.05, 3, NULL, NULL, NULL, 1, 0.014),
    ('gemini', 'gemini-3.1-flash-lite', 0.25, 0.025, 1.5, NULL, NULL, NULL, 0.5, 0.014),
    ('gemini', 'gemini-3.1-flash-lite-preview', 0.25, 0.025, 1.5, NULL, NULL, NULL, 0.5, 0.014),
    ('gemini', 'gemini-3.1-pro-preview', 2, 0.2, 12, 200000, NULL, NULL, 2, 0.014),
    ('gemini', 'gemini-3.1-pro-preview-customtools', 2, 0.2, 12, 200000, NULL, NULL, 2, 0.014),
    ('gemini', 'gemini-3.5-flash', 1.5, 0.15, 9, NULL, NULL, NULL, 1.5, 0.014),
    ('gemini', 'gemini-3.5-flash-lite', 0.3, 0.03, 2.5, NULL, NULL, NULL, 0.3, 0.014),
    ('gemini', 'gemini-3.6-flash', 0.75, 0.075, 3.75, NULL, NULL, NULL, 0.75, 0.014),
    ('gemini', 'gemini-3.7-flash', 0.75, 0.075, 3.75, NULL, NULL, NULL, 0.75, 0.014),
    ('gemini', 'gemini-3.8-flash', 0.75, 0.075, 3.75, NULL, NULL, NULL, 0.75, 0.014),
    ('gemini', 'gemini-4-argon', 2, 0.1, 10, NULL, NULL, NULL, 2, 0.014),
    ('gemini', 'gemini-embedding-001', 0.15, NULL, 0, NULL, NULL, NULL, NULL, NULL),
    ('gemini', 'gemini-embedding-2', 0.2, NULL, 0, NULL, NULL, NULL, 6.5, NULL),
    ('gemini', 'gemini-embedding-2-preview', 0.2, NULL, 0, NULL, NULL, NULL, 6.5, NULL)
) AS shipped (provider, model, input, cached, output, longest, cache_write, cache_write_1h, audio, search)
WHERE NOT EXISTS (
    SELECT FROM prices own WHERE own.provider = shipped.provider AND own.model = shipped.model
);
