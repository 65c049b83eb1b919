-- Every accepted job and its state.
SELECT job_id AS "job_id!", state AS "state!" FROM jobs
