-- That so much of a budget is spent: who is to be told of it, and whether it was.

CREATE TABLE limit_notices (
    notice_id  uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    limit_id   uuid        NOT NULL REFERENCES limits,
    -- The beginning of the budget's period.
    period     timestamptz NOT NULL,
    -- Of the amount, as in the limit's notify_at.
    share      numeric     NOT NULL,
    spent_usd  numeric     NOT NULL,
    amount_usd numeric     NOT NULL,
    webhook    text        NOT NULL,
    crossed_at timestamptz NOT NULL DEFAULT now(),
    tries      integer     NOT NULL DEFAULT 0,
    next_try   timestamptz NOT NULL DEFAULT now(),
    told_at    timestamptz,
    given_up   boolean     NOT NULL DEFAULT false,
    UNIQUE (limit_id, period, share)
);
CREATE INDEX limit_notices_to_tell ON limit_notices (next_try) WHERE told_at IS NULL AND NOT given_up;
COMMENT ON TABLE limit_notices IS
    'That a share of a budget was spent: once in each period for each share, with whether its webhook has taken it.';
