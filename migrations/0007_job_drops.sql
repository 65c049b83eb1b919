-- Jobs that their submitters have had forgotten. Their rows and costs stay; lists leave them out.

CREATE TABLE job_drops (
    job_id     uuid        PRIMARY KEY,
    dropped_at timestamptz NOT NULL
);
COMMENT ON TABLE job_drops IS 'One row for each job whose request and answer were erased before their time, at its submitter''s wish.';
CREATE TRIGGER job_drops_append_only BEFORE UPDATE OR DELETE ON job_drops
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER job_drops_no_truncate BEFORE TRUNCATE ON job_drops
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();

CREATE OR REPLACE VIEW jobs AS
SELECT
    s.job_id, s.key_id, s.key_name, s.tags, s.batch, s.priority, s.model, s.dialect, s.operation, s.submitted_at,
    s.not_before, s.deadline_at, coalesce(e.state, 'waiting') AS state, e.error_code,
    coalesce(e.failed_calls, 0) AS failed_calls, e.ended_at, d.dropped_at
FROM job_submissions s
LEFT JOIN job_ends e ON e.job_id = s.job_id
LEFT JOIN job_drops d ON d.job_id = s.job_id;
