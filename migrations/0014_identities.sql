-- What all of a tenant may do is published by itself: it also binds who shows a token of an identity provider and has no key.

ALTER TABLE organisations
    ADD COLUMN revision  bigint NOT NULL DEFAULT 1,
    -- What every ingress has been told of.
    ADD COLUMN published bigint NOT NULL DEFAULT 0;
ALTER TABLE teams
    ADD COLUMN revision  bigint NOT NULL DEFAULT 1,
    ADD COLUMN published bigint NOT NULL DEFAULT 0;
