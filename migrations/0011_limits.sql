-- Budgets and rate limits, the slices of them that ingress replicas have in hand, and sums of the ledger by quarter of an hour, from which
-- budgets and reports are answered.

-- What is reserved for an attempt, and of which leases.
ALTER TABLE attempts
    ADD COLUMN hold_usd    numeric,
    ADD COLUMN hold_leases uuid[],
    ADD CONSTRAINT attempts_hold CHECK (hold_usd >= 0 AND num_nonnulls(hold_usd, hold_leases) IN (0, 2));

CREATE TABLE usage_slots (
    -- Its beginning; 15 minutes, to which every time zone's midnight is a beginning.
    slot           timestamptz NOT NULL,
    -- Empty for what has none, so that it can be part of the key.
    organisation   text        NOT NULL,
    team           text        NOT NULL,
    key_id         uuid        NOT NULL,
    model          text        NOT NULL,
    provider       text        NOT NULL,
    provider_model text        NOT NULL,
    key_name       text        NOT NULL,
    calls          bigint      NOT NULL,
    unpriced_calls bigint      NOT NULL,
    orphaned_calls bigint      NOT NULL,
    input_tokens   numeric     NOT NULL,
    cached_input_tokens numeric NOT NULL,
    output_tokens  numeric     NOT NULL,
    cost_usd       numeric     NOT NULL,
    PRIMARY KEY (slot, key_id, model, provider, provider_model, organisation, team, key_name)
);
CREATE INDEX usage_slots_by_tenant ON usage_slots (organisation, team, slot);
CREATE INDEX usage_slots_by_key ON usage_slots (key_id, slot);
COMMENT ON TABLE usage_slots IS
    'Completed calls by 15 minutes, tenant, key, model and provider, corrections included. Kept in the transaction that completes a call, so that it always says what the ledger does.';

CREATE TABLE usage_tags (
    slot         timestamptz NOT NULL,
    organisation text        NOT NULL,
    name         text        NOT NULL,
    value        text        NOT NULL,
    calls        bigint      NOT NULL,
    unpriced_calls bigint    NOT NULL,
    orphaned_calls bigint    NOT NULL,
    input_tokens numeric     NOT NULL,
    output_tokens numeric    NOT NULL,
    cost_usd     numeric     NOT NULL,
    PRIMARY KEY (name, value, slot, organisation)
);
CREATE INDEX usage_tags_by_slot ON usage_tags (slot);
COMMENT ON TABLE usage_tags IS
    'The same by tag. A call with several tags is in it several times.';

CREATE TABLE limits (
    limit_id       uuid        PRIMARY KEY,
    name           text        NOT NULL UNIQUE,
    measure        text        NOT NULL,
    amount         numeric     NOT NULL,
    organisation   text        REFERENCES organisations,
    team           text,
    key_id         uuid,
    tag_name       text,
    tag_value      text,
    model          text,
    provider       text,
    period         text,
    time_zone      text,
    window_seconds integer,
    when_away      text        NOT NULL,
    notify_at      numeric[]   NOT NULL DEFAULT '{}',
    webhook        text,
    -- From whose key it was made; nobody's for the gateway's own.
    by_organisation text,
    by_team        text,
    -- Of a budget without a period: the slot from which it counts, and what of that had been spent before.
    since          timestamptz NOT NULL,
    spent_before   numeric     NOT NULL DEFAULT 0,
    removed        boolean     NOT NULL DEFAULT false,
    revision       bigint      NOT NULL DEFAULT 1,
    published      bigint      NOT NULL DEFAULT 0,
    FOREIGN KEY (organisation, team) REFERENCES teams (organisation, name),
    CONSTRAINT limits_measure CHECK (
        measure IN ('usd', 'requests', 'input_tokens', 'output_tokens', 'tokens', 'concurrency')),
    CONSTRAINT limits_amount CHECK (amount >= 0),
    CONSTRAINT limits_period CHECK (
        (measure = 'usd') = (period IS NOT NULL) AND period IN ('total', 'day', 'week', 'month')
        AND (period IS NULL) = (time_zone IS NULL)),
    CONSTRAINT limits_window CHECK (
        (measure IN ('usd', 'concurrency')) = (window_seconds IS NULL) AND window_seconds BETWEEN 1 AND 86400),
    CONSTRAINT limits_when_away CHECK (when_away IN ('refuse', 'allow')),
    CONSTRAINT limits_tag CHECK ((tag_name IS NULL) = (tag_value IS NULL))
);
CREATE INDEX limits_to_publish ON limits (limit_id) WHERE published < revision;
COMMENT ON TABLE limits IS 'Budgets and rate limits. Change them with `tollgate limits`; the ledger is never changed by that.';

CREATE TABLE leases (
    lease_id   uuid        PRIMARY KEY,
    limit_id   uuid        NOT NULL REFERENCES limits,
    -- The beginning of the budget's period.
    period     timestamptz NOT NULL,
    holder     text        NOT NULL,
    granted    numeric     NOT NULL,
    returned   numeric     NOT NULL,
    -- Of budgets: reserved for calls that the ledger knows and that have not ended, and what calls that have ended cost.
    held       numeric     NOT NULL DEFAULT 0,
    settled    numeric     NOT NULL DEFAULT 0,
    opened_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    -- Its holder is gone, and what it reserved is known to the ledger.
    closed     boolean     NOT NULL DEFAULT false,
    CONSTRAINT leases_amounts CHECK (granted >= 0 AND returned >= 0 AND returned <= granted)
);
CREATE INDEX leases_by_limit ON leases (limit_id, opened_at);
CREATE INDEX leases_by_end ON leases (expires_at);
COMMENT ON TABLE leases IS 'Slices of limits in the hands of ingress replicas.';

-- What of a budget's lease is not free for others: in its holder's hands, or, when that is gone, for calls that have not ended. While it
-- lives its holder knows better than the ledger, which may be behind, what its calls have left over.
CREATE FUNCTION lease_open(l leases) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN l.closed THEN l.held ELSE greatest(l.granted - l.returned - l.settled, 0) END
$$;

CREATE FUNCTION usage_slot(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT date_bin('15 minutes', at, '2000-01-01 00:00:00+00')
$$;

-- Adds calls that have just completed to the sums, and tells the leases that pay for calls.
CREATE FUNCTION usage_add_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_slots
    SELECT
        usage_slot(started_at), coalesce(organisation, ''), coalesce(team, ''), key_id, model, provider, provider_model,
        key_name, count(*), count(*) FILTER (WHERE cost_usd IS NULL), count(*) FILTER (WHERE state = 'orphaned'),
        sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), coalesce(sum(cost_usd), 0)
    FROM changed WHERE state <> 'open'
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ORDER BY 1, 4, 5, 6, 7, 2, 3, 8
    ON CONFLICT (slot, key_id, model, provider, provider_model, organisation, team, key_name) DO UPDATE SET
        calls = usage_slots.calls + excluded.calls,
        unpriced_calls = usage_slots.unpriced_calls + excluded.unpriced_calls,
        orphaned_calls = usage_slots.orphaned_calls + excluded.orphaned_calls,
        input_tokens = usage_slots.input_tokens + excluded.input_tokens,
        cached_input_tokens = usage_slots.cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = usage_slots.output_tokens + excluded.output_tokens,
        cost_usd = usage_slots.cost_usd + excluded.cost_usd;
    INSERT INTO usage_tags
    SELECT
        usage_slot(started_at), coalesce(organisation, ''), tag.key, tag.value, count(*),
        count(*) FILTER (WHERE cost_usd IS NULL), count(*) FILTER (WHERE state = 'orphaned'), sum(input_tokens),
        sum(output_tokens), coalesce(sum(cost_usd), 0)
    FROM changed CROSS JOIN LATERAL jsonb_each_text(tags) AS tag
    WHERE state <> 'open' AND tags <> '{}'
    GROUP BY 1, 2, 3, 4
    ORDER BY 3, 4, 1, 2
    ON CONFLICT (name, value, slot, organisation) DO UPDATE SET
        calls = usage_tags.calls + excluded.calls,
        unpriced_calls = usage_tags.unpriced_calls + excluded.unpriced_calls,
        orphaned_calls = usage_tags.orphaned_calls + excluded.orphaned_calls,
        input_tokens = usage_tags.input_tokens + excluded.input_tokens,
        output_tokens = usage_tags.output_tokens + excluded.output_tokens,
        cost_usd = usage_tags.cost_usd + excluded.cost_usd;
    -- Locked in one order first: an update alone takes them in any.
    PERFORM 1 FROM leases
    WHERE lease_id IN (SELECT unnest(hold_leases) FROM changed WHERE hold_leases IS NOT NULL)
    ORDER BY lease_id FOR UPDATE;
    UPDATE leases SET held = leases.held + paid.held, settled = leases.settled + paid.settled
    FROM (
        SELECT
            lease,
            -- A row that was inserted settled has never been held.
            sum(CASE WHEN state = 'open' THEN hold_usd WHEN TG_OP = 'UPDATE' THEN -hold_usd ELSE 0 END) AS held,
            sum(CASE WHEN state = 'open' THEN 0 ELSE coalesce(cost_usd, 0) END) AS settled
        FROM changed CROSS JOIN LATERAL unnest(hold_leases) AS lease
        GROUP BY 1
    ) AS paid
    WHERE leases.lease_id = paid.lease;
    RETURN NULL;
END $$;

-- Adds corrections of completed calls to the sums.
CREATE FUNCTION usage_add_corrections() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_slots
    SELECT
        usage_slot(a.started_at), coalesce(a.organisation, ''), coalesce(a.team, ''), a.key_id, a.model, a.provider,
        a.provider_model, a.key_name, 0,
        -- The true cost has no price, or has one where the estimate had none.
        count(*) FILTER (WHERE c.cost_usd_delta IS NULL AND a.cost_usd IS NOT NULL)
            - count(*) FILTER (WHERE c.cost_usd_delta IS NOT NULL AND a.cost_usd IS NULL),
        -count(*), sum(c.input_tokens_delta), sum(c.cached_input_tokens_delta), sum(c.output_tokens_delta),
        coalesce(sum(coalesce(c.cost_usd_delta, -coalesce(a.cost_usd, 0))), 0)
    FROM changed c JOIN attempts a ON a.attempt_id = c.attempt_id
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ORDER BY 1, 4, 5, 6, 7, 2, 3, 8
    ON CONFLICT (slot, key_id, model, provider, provider_model, organisation, team, key_name) DO UPDATE SET
        unpriced_calls = usage_slots.unpriced_calls + excluded.unpriced_calls,
        orphaned_calls = usage_slots.orphaned_calls + excluded.orphaned_calls,
        input_tokens = usage_slots.input_tokens + excluded.input_tokens,
        cached_input_tokens = usage_slots.cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = usage_slots.output_tokens + excluded.output_tokens,
        cost_usd = usage_slots.cost_usd + excluded.cost_usd;
    INSERT INTO usage_tags
    SELECT
        usage_slot(a.started_at), coalesce(a.organisation, ''), tag.key, tag.value, 0,
        count(*) FILTER (WHERE c.cost_usd_delta IS NULL AND a.cost_usd IS NOT NULL)
            - count(*) FILTER (WHERE c.cost_usd_delta IS NOT NULL AND a.cost_usd IS NULL),
        -count(*), sum(c.input_tokens_delta), sum(c.output_tokens_delta),
        coalesce(sum(coalesce(c.cost_usd_delta, -coalesce(a.cost_usd, 0))), 0)
    FROM changed c JOIN attempts a ON a.attempt_id = c.attempt_id CROSS JOIN LATERAL jsonb_each_text(a.tags) AS tag
    GROUP BY 1, 2, 3, 4
    ORDER BY 3, 4, 1, 2
    ON CONFLICT (name, value, slot, organisation) DO UPDATE SET
        unpriced_calls = usage_tags.unpriced_calls + excluded.unpriced_calls,
        orphaned_calls = usage_tags.orphaned_calls + excluded.orphaned_calls,
        input_tokens = usage_tags.input_tokens + excluded.input_tokens,
        output_tokens = usage_tags.output_tokens + excluded.output_tokens,
        cost_usd = usage_tags.cost_usd + excluded.cost_usd;
    RETURN NULL;
END $$;

CREATE TRIGGER usage_of_new_attempts AFTER INSERT ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_add_attempts();
CREATE TRIGGER usage_of_completed_attempts AFTER UPDATE ON attempts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_add_attempts();
CREATE TRIGGER usage_of_corrections AFTER INSERT ON attempt_corrections
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_add_corrections();

-- The sums of what the slots from `since` to before `until` hold, anew from the ledger.
CREATE FUNCTION usage_rebuild(since timestamptz, until timestamptz) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Nobody completes a call meanwhile.
    LOCK TABLE attempts, attempt_corrections IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM usage_slots WHERE slot >= since AND slot < until;
    DELETE FROM usage_tags WHERE slot >= since AND slot < until;
    INSERT INTO usage_slots
    SELECT
        usage_slot(started_at), coalesce(organisation, ''), coalesce(team, ''), key_id, model, provider, provider_model,
        key_name, count(*), count(*) FILTER (WHERE cost_usd IS NULL), count(*) FILTER (WHERE state = 'orphaned'),
        sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), coalesce(sum(cost_usd), 0)
    FROM ledger WHERE state <> 'open' AND started_at >= since AND started_at < until
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
    INSERT INTO usage_tags
    SELECT
        usage_slot(started_at), coalesce(organisation, ''), tag.key, tag.value, count(*),
        count(*) FILTER (WHERE cost_usd IS NULL), count(*) FILTER (WHERE state = 'orphaned'), sum(input_tokens),
        sum(output_tokens), coalesce(sum(cost_usd), 0)
    FROM ledger CROSS JOIN LATERAL jsonb_each_text(tags) AS tag
    WHERE state <> 'open' AND started_at >= since AND started_at < until
    GROUP BY 1, 2, 3, 4;
END $$;

-- When a budget's present period began, and when it ends.
CREATE FUNCTION budget_period(l limits, at timestamptz, OUT began timestamptz, OUT ends timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT
        CASE l.period WHEN 'total' THEN l.since
            ELSE date_trunc(l.period, at AT TIME ZONE l.time_zone) AT TIME ZONE l.time_zone END,
        CASE l.period WHEN 'total' THEN NULL
            ELSE (date_trunc(l.period, at AT TIME ZONE l.time_zone) + ('1 ' || l.period)::interval)
                AT TIME ZONE l.time_zone END
$$;

-- What the ledger says was spent of a budget since its period began.
CREATE FUNCTION budget_spent(l limits, began timestamptz) RETURNS numeric LANGUAGE plpgsql STABLE AS $$
DECLARE
    spent numeric;
BEGIN
    IF l.tag_name IS NOT NULL THEN
        SELECT sum(cost_usd) INTO spent FROM usage_tags
        WHERE name = l.tag_name AND value = l.tag_value AND slot >= began
          AND (l.organisation IS NULL OR organisation = l.organisation);
    ELSIF l.key_id IS NOT NULL THEN
        SELECT sum(cost_usd) INTO spent FROM usage_slots
        WHERE key_id = l.key_id AND slot >= began
          AND (l.organisation IS NULL OR organisation = l.organisation) AND (l.team IS NULL OR team = l.team)
          AND (l.model IS NULL OR model = l.model) AND (l.provider IS NULL OR provider = l.provider);
    ELSIF l.team IS NOT NULL THEN
        SELECT sum(cost_usd) INTO spent FROM usage_slots
        WHERE organisation = l.organisation AND team = l.team AND slot >= began
          AND (l.model IS NULL OR model = l.model) AND (l.provider IS NULL OR provider = l.provider);
    ELSIF l.organisation IS NOT NULL THEN
        SELECT sum(cost_usd) INTO spent FROM usage_slots
        WHERE organisation = l.organisation AND slot >= began
          AND (l.model IS NULL OR model = l.model) AND (l.provider IS NULL OR provider = l.provider);
    ELSE
        SELECT sum(cost_usd) INTO spent FROM usage_slots
        WHERE slot >= began
          AND (l.model IS NULL OR model = l.model) AND (l.provider IS NULL OR provider = l.provider);
    END IF;
    RETURN coalesce(spent, 0) - CASE l.period WHEN 'total' THEN l.spent_before ELSE 0 END;
END $$;

-- How long the slices of a limit last: those of a window a sixtieth of it, so that at most so much of it lies idle.
CREATE FUNCTION lease_time(l limits, usual interval) RETURNS interval LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN l.window_seconds IS NULL THEN usual
        ELSE least(greatest(l.window_seconds / 60.0, 0.1), 5) * interval '1 second' END
$$;

-- What is used of a limit, and what is in the hands of replicas, of one moment.
CREATE FUNCTION limit_state(l limits, usual interval, OUT used numeric, OUT open numeric, OUT next interval)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    began timestamptz;
    lasts interval := lease_time(l, usual);
BEGIN
    IF l.measure = 'usd' THEN
        began := (budget_period(l, now())).began;
        SELECT budget_spent(l, began), coalesce(sum(lease_open(x)), 0) INTO used, open
        FROM leases x WHERE x.limit_id = l.limit_id AND x.period = began;
    ELSIF l.measure = 'concurrency' THEN
        SELECT 0, coalesce(sum(x.granted - x.returned), 0) INTO used, open
        FROM leases x WHERE x.limit_id = l.limit_id AND NOT x.closed;
    ELSE
        SELECT 0, coalesce(sum(x.granted - x.returned), 0),
               min(x.opened_at) FILTER (WHERE x.granted > x.returned) + l.window_seconds * interval '1 second' + lasts - now()
        INTO used, open, next
        FROM leases x
        WHERE x.limit_id = l.limit_id AND x.opened_at > now() - l.window_seconds * interval '1 second' - lasts;
    END IF;
END $$;

-- Takes back what a lease has returned and grants more of its limit, or a first slice: as much as is wanted or an eighth of what is free, at
-- least what is needed, or nothing.
CREATE FUNCTION lease_take(
    the_limit uuid, the_lease uuid, the_holder text, given_back numeric, wanted numeric, needed numeric, last boolean,
    usual interval,
    OUT valid boolean, OUT granted numeric, OUT lasts interval, OUT amount numeric, OUT used numeric, OUT free numeric,
    OUT resets interval
) LANGUAGE plpgsql AS $$
DECLARE
    l limits;
    x leases;
    began timestamptz := now();
    ends timestamptz;
    more numeric := 0;
    state record;
BEGIN
    SELECT * INTO l FROM limits WHERE limit_id = the_limit FOR NO KEY UPDATE;
    IF l.limit_id IS NULL THEN
        valid := false;
        RETURN;
    END IF;
    IF l.measure = 'usd' THEN
        SELECT p.began, p.ends INTO began, ends FROM budget_period(l, now()) AS p;
    END IF;
    SELECT * INTO x FROM leases WHERE lease_id = the_lease AND limit_id = the_limit FOR UPDATE;
    IF x.lease_id IS NOT NULL THEN
        UPDATE leases SET returned = least(greatest(leases.returned, given_back), leases.granted)
        WHERE lease_id = the_lease;
    END IF;
    SELECT * INTO state FROM limit_state(l, usual);
    amount := l.amount;
    used := state.used;
    lasts := lease_time(l, usual);
    free := greatest(l.amount - state.used - state.open, 0);
    resets := coalesce(ends - clock_timestamp(), state.next);
    valid := NOT l.removed AND (x.lease_id IS NULL OR NOT x.closed AND CASE l.measure
        WHEN 'usd' THEN x.period = began
        WHEN 'concurrency' THEN true
        ELSE false END);
    IF NOT valid THEN
        granted := x.granted;
        RETURN;
    END IF;
    IF wanted > 0 AND free >= needed THEN
        more := least(wanted, greatest(needed, trunc(free / 8, 9)), free);
        IF l.measure <> 'usd' THEN
            more := least(floor(free), ceil(more));
        END IF;
    END IF;
    granted := coalesce(x.granted, 0) + more;
    free := free - more;
    IF x.lease_id IS NULL AND more > 0 THEN
        INSERT INTO leases (lease_id, limit_id, period, holder, granted, returned, opened_at, expires_at)
        VALUES (the_lease, the_limit, began, the_holder, more, 0, now(), now() + lasts);
    ELSE
        UPDATE leases SET granted = lease_take.granted, expires_at = CASE WHEN last THEN now() ELSE now() + lasts END
        WHERE lease_id = the_lease;
    END IF;
END $$;

-- Ends leases whose holders are gone for so long that the ledger knows what they reserved, and forgets those that nothing hangs on any more.
CREATE FUNCTION leases_sweep(ended_before timestamptz) RETURNS bigint LANGUAGE sql AS $$
    WITH gone AS (
        SELECT lease_id FROM leases WHERE NOT closed AND expires_at < ended_before ORDER BY lease_id FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE leases SET closed = true FROM gone WHERE leases.lease_id = gone.lease_id RETURNING 1
    ), forgotten AS (
        DELETE FROM leases WHERE lease_id IN (
            SELECT x.lease_id FROM leases x JOIN limits l USING (limit_id)
            WHERE x.expires_at < now() - interval '1 minute' - coalesce(l.window_seconds, 0) * interval '1 second'
              AND x.held = 0 AND x.closed
            ORDER BY x.lease_id FOR UPDATE OF x SKIP LOCKED
        )
    )
    SELECT count(*) FROM ended
$$;

-- What the ledger has already.
SELECT usage_rebuild('-infinity', 'infinity');
