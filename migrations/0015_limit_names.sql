-- A limit's name is one of those that its own tenant has made: what others call theirs is nobody's business.

ALTER TABLE limits DROP CONSTRAINT limits_name_key;
CREATE UNIQUE INDEX limits_by_name ON limits (coalesce(by_organisation, ''), coalesce(by_team, ''), name) WHERE NOT removed;
