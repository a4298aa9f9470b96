-- A journal as the first version of the schema wrote it.
PRAGMA application_id = 1263291975;
PRAGMA user_version = 1;
BEGIN;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
    key TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    external_task_id TEXT NOT NULL,
    account TEXT NOT NULL,
    model TEXT NOT NULL,
    slots INTEGER NOT NULL,
    units INTEGER NOT NULL,
    task_id TEXT NOT NULL,
    submitted_at REAL,
    ended_at REAL,
    result TEXT,
    error TEXT
) WITHOUT ROWID;
CREATE INDEX jobs_live ON jobs (state) WHERE state IN ('submitting', 'unknown', 'submitted', 'succeeded');
INSERT INTO meta VALUES ('run', 'run-of-old'), ('clean', 'yes');
INSERT INTO jobs VALUES
    ('row-0', 'done', 'f0', 0, 'ka-0', 'default', 'kling-v2-1', 2, 32, 't0', 1790000000.5, 1790000060.25,
     '{"key": "row-0", "status": "succeeded", "task_id": "t0", "files": ["images/row-0_0.png"]}', NULL),
    ('row-1', 'submitted', 'f1', 1, 'ka-1', 'default', 'kling-v2-1', 1, 16, 't1', 1790000001.0, NULL, NULL, NULL),
    ('row-2', 'submitting', 'f2', 0, 'ka-2', 'default', 'kling-v2', 1, 16, '', 1790000002.0, NULL, NULL, NULL),
    ('row-3', 'failed', 'f3', 0, 'ka-3', 'default', 'kling-v2-1', 1, 16, 't3', 1790000003.0, 1790000010.0,
     '{"key": "row-3", "status": "failed", "task_id": "t3"}', '{"type": "ContentRefusal", "code": 1301}');
COMMIT;
