-- The ledger: one row for each call to a provider, one for each request, and the prices that turn tokens into money.
--
-- Rows complete once and are immutable from then on; triggers enforce it against every client of the database.
-- Money is numeric without a fixed scale. Times are UTC.

CREATE TABLE prices (
    id                        bigserial PRIMARY KEY,
    -- A name from the section `providers` of the configuration, not the name of a company.
    provider                  text        NOT NULL,
    -- The name by which that provider knows the model.
    model                     text        NOT NULL,
    valid_from                timestamptz NOT NULL,
    -- The first moment at which the price no longer holds; NULL while it does.
    valid_to                  timestamptz,
    input_usd_per_mtok        numeric     NOT NULL,
    -- NULL: cached tokens cost as much as others.
    cached_input_usd_per_mtok numeric,
    output_usd_per_mtok       numeric     NOT NULL,
    -- The longest prompt that this price is for; NULL: any. A longer one is unpriced rather than priced wrongly.
    max_input_tokens          bigint,
    -- Where the price was read.
    source                    text        NOT NULL,
    UNIQUE (provider, model, valid_from),
    CONSTRAINT prices_period CHECK (valid_to > valid_from),
    -- Below a million dollars, so that no product with a token count leaves the range of an exact decimal.
    CONSTRAINT prices_range CHECK (
        input_usd_per_mtok >= 0 AND input_usd_per_mtok < 1000000 AND scale(input_usd_per_mtok) <= 9
        AND cached_input_usd_per_mtok >= 0 AND cached_input_usd_per_mtok < 1000000
        AND scale(cached_input_usd_per_mtok) <= 9
        AND output_usd_per_mtok >= 0 AND output_usd_per_mtok < 1000000 AND scale(output_usd_per_mtok) <= 9
        AND max_input_tokens > 0
    )
);
COMMENT ON TABLE prices IS
    'Prices in US dollars per million tokens, by provider name, model and period. To change one: set valid_to of the old row, then insert a new row from that moment.';

CREATE TABLE attempts (
    attempt_id             uuid        PRIMARY KEY,
    request_id             uuid        NOT NULL,
    generation             bigint      NOT NULL,
    retry                  bigint      NOT NULL,
    provider               text        NOT NULL,
    provider_model         text        NOT NULL,
    model                  text        NOT NULL,
    key_id                 uuid        NOT NULL,
    key_name               text        NOT NULL,
    tags                   jsonb       NOT NULL,
    dialect                text        NOT NULL,
    stream                 boolean     NOT NULL,
    started_at             timestamptz NOT NULL,
    deadline_at            timestamptz NOT NULL,
    -- What an orphan is estimated from.
    estimated_input_tokens bigint      NOT NULL,
    max_output_tokens      bigint,
    state                  text        NOT NULL,
    outcome                text,
    error_code             text,
    provider_status        integer,
    served_model           text,
    input_tokens           bigint,
    cached_input_tokens    bigint,
    output_tokens          bigint,
    reasoning_tokens       bigint,
    usage_source           text,
    price_id               bigint REFERENCES prices,
    -- NULL in a completed row: no price is known. Never zero for want of a price.
    cost_usd               numeric,
    ended_at               timestamptz,
    first_token_ms         bigint,
    CONSTRAINT attempts_state CHECK (state IN ('open', 'settled', 'orphaned')),
    CONSTRAINT attempts_tags CHECK (jsonb_typeof(tags) = 'object'),
    CONSTRAINT attempts_outcome CHECK (outcome IN ('answered', 'failed', 'cancelled', 'broken')),
    CONSTRAINT attempts_usage_source CHECK (usage_source IN ('provider', 'counted', 'estimated', 'none')),
    CONSTRAINT attempts_not_negative CHECK (
        generation >= 0 AND retry >= 0 AND estimated_input_tokens >= 0 AND max_output_tokens >= 0
        AND input_tokens >= 0 AND cached_input_tokens >= 0 AND output_tokens >= 0 AND reasoning_tokens >= 0
        AND cost_usd >= 0 AND first_token_ms >= 0
    ),
    CONSTRAINT attempts_open CHECK (
        state <> 'open'
        OR num_nonnulls(outcome, error_code, provider_status, served_model, input_tokens, cached_input_tokens,
                        output_tokens, reasoning_tokens, usage_source, price_id, cost_usd, ended_at,
                        first_token_ms) = 0
    ),
    CONSTRAINT attempts_settled CHECK (
        state <> 'settled'
        OR num_nulls(outcome, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, usage_source,
                     ended_at) = 0
    ),
    CONSTRAINT attempts_orphaned CHECK (
        state <> 'orphaned'
        OR (num_nulls(input_tokens, cached_input_tokens, output_tokens, reasoning_tokens) = 0
            AND usage_source IS NOT DISTINCT FROM 'estimated'
            AND num_nonnulls(outcome, error_code, provider_status, served_model, ended_at, first_token_ms) = 0)
    )
);
COMMENT ON TABLE attempts IS 'One row for each call to a provider. Read the view ledger instead: it includes corrections.';
CREATE INDEX attempts_by_start ON attempts (started_at);
CREATE INDEX attempts_by_request ON attempts (request_id);
CREATE INDEX attempts_open_by_deadline ON attempts (deadline_at) WHERE state = 'open';

-- Kept apart from attempts, so that it makes no difference whether the news comes before the attempt's own events.
CREATE TABLE abandonments (
    attempt_id   uuid        PRIMARY KEY,
    abandoned_at timestamptz NOT NULL
);
COMMENT ON TABLE abandonments IS
    'Attempts whose owner lost the worker. An open attempt counts as overdue from the earlier of its deadline and this moment.';

CREATE TABLE attempt_corrections (
    attempt_id                uuid        PRIMARY KEY REFERENCES attempts,
    outcome                   text        NOT NULL,
    error_code                text,
    provider_status           integer,
    served_model              text,
    input_tokens_delta        bigint      NOT NULL,
    cached_input_tokens_delta bigint      NOT NULL,
    output_tokens_delta       bigint      NOT NULL,
    reasoning_tokens_delta    bigint      NOT NULL,
    usage_source              text        NOT NULL,
    price_id                  bigint REFERENCES prices,
    -- Against the estimate, or against zero where that had no price; NULL: the true cost has no price.
    cost_usd_delta            numeric,
    ended_at                  timestamptz NOT NULL,
    first_token_ms            bigint,
    recorded_at               timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT attempt_corrections_outcome CHECK (outcome IN ('answered', 'failed', 'cancelled', 'broken')),
    CONSTRAINT attempt_corrections_usage_source CHECK (usage_source IN ('provider', 'counted', 'estimated', 'none')),
    CONSTRAINT attempt_corrections_first_token CHECK (first_token_ms >= 0)
);
COMMENT ON TABLE attempt_corrections IS
    'What an orphaned attempt had really used, for those that settled after all: differences to the estimate in attempts.';

CREATE TABLE requests (
    request_id   uuid        PRIMARY KEY,
    state        text        NOT NULL,
    error_code   text,
    resends      bigint      NOT NULL,
    key_id       uuid        NOT NULL,
    key_name     text        NOT NULL,
    tags         jsonb       NOT NULL,
    model        text        NOT NULL,
    dialect      text        NOT NULL,
    stream       boolean     NOT NULL,
    accepted_at  timestamptz NOT NULL,
    concluded_at timestamptz NOT NULL,
    CONSTRAINT requests_state CHECK (state IN ('answered', 'denied', 'failed', 'cancelled')),
    CONSTRAINT requests_tags CHECK (jsonb_typeof(tags) = 'object'),
    CONSTRAINT requests_resends CHECK (resends >= 0)
);
COMMENT ON TABLE requests IS 'One row for each request that reached its terminal state.';
CREATE INDEX requests_by_acceptance ON requests (accepted_at);

CREATE TABLE ledger_quarantine (
    stream_sequence bigint      NOT NULL,
    subject         text        NOT NULL,
    size            bigint      NOT NULL,
    sha256          bytea       NOT NULL,
    reason          text        NOT NULL,
    seen_at         timestamptz NOT NULL DEFAULT now(),
    -- A stream that was made anew counts from one again.
    PRIMARY KEY (stream_sequence, sha256),
    CONSTRAINT ledger_quarantine_sha256 CHECK (octet_length(sha256) = 32)
);
COMMENT ON TABLE ledger_quarantine IS
    'Messages of the ledger stream that could not be recorded. Their content is not kept; while the stream does, it is found there by its sequence.';

CREATE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: the ledger is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;

-- An open attempt may complete, once, without a change to what was known at its start. Nothing else may change.
CREATE FUNCTION attempts_complete_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'open' OR NEW.state = 'open'
       OR (NEW.attempt_id, NEW.request_id, NEW.generation, NEW.retry, NEW.provider, NEW.provider_model, NEW.model,
           NEW.key_id, NEW.key_name, NEW.tags, NEW.dialect, NEW.stream, NEW.started_at, NEW.deadline_at,
           NEW.estimated_input_tokens, NEW.max_output_tokens)
          IS DISTINCT FROM
          (OLD.attempt_id, OLD.request_id, OLD.generation, OLD.retry, OLD.provider, OLD.provider_model, OLD.model,
           OLD.key_id, OLD.key_name, OLD.tags, OLD.dialect, OLD.stream, OLD.started_at, OLD.deadline_at,
           OLD.estimated_input_tokens, OLD.max_output_tokens)
    THEN
        RAISE EXCEPTION 'attempt % is immutable: a % row can only be completed, and only once', OLD.attempt_id, OLD.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

-- A price may be ended, once. A new or ended price must not hold at the same time as another of the same model.
CREATE FUNCTION prices_end_once_without_overlap() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.valid_to IS NOT NULL
        OR (NEW.id, NEW.provider, NEW.model, NEW.valid_from, NEW.input_usd_per_mtok, NEW.cached_input_usd_per_mtok,
            NEW.output_usd_per_mtok, NEW.max_input_tokens, NEW.source)
           IS DISTINCT FROM
           (OLD.id, OLD.provider, OLD.model, OLD.valid_from, OLD.input_usd_per_mtok, OLD.cached_input_usd_per_mtok,
            OLD.output_usd_per_mtok, OLD.max_input_tokens, OLD.source))
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

CREATE TRIGGER attempts_complete_once BEFORE UPDATE ON attempts
    FOR EACH ROW EXECUTE FUNCTION attempts_complete_once();
CREATE TRIGGER attempts_no_delete BEFORE DELETE ON attempts
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER attempts_no_truncate BEFORE TRUNCATE ON attempts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER attempt_corrections_append_only BEFORE UPDATE OR DELETE ON attempt_corrections
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER attempt_corrections_no_truncate BEFORE TRUNCATE ON attempt_corrections
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER requests_append_only BEFORE UPDATE OR DELETE ON requests
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER requests_no_truncate BEFORE TRUNCATE ON requests
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER prices_end_once_without_overlap BEFORE INSERT OR UPDATE ON prices
    FOR EACH ROW EXECUTE FUNCTION prices_end_once_without_overlap();
CREATE TRIGGER prices_no_delete BEFORE DELETE ON prices
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER prices_no_truncate BEFORE TRUNCATE ON prices
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
