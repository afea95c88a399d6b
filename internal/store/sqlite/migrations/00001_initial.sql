-- +goose Up

-- The store's own data: its id, and the progress of the journal and of the purge of
-- changes.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO meta (key, value) VALUES
    ('store_id', lower(hex(randomblob(8)))),
    ('journaled_event', '0'),
    ('purged_change', '0'),
    ('checks', '0');

-- Times are Unix nanoseconds. doc contains the whole record as JSON; the other columns are
-- what queries need of it.
CREATE TABLE vms (
    vm_id        TEXT PRIMARY KEY,
    pool_id      TEXT NOT NULL,
    org_id       TEXT NOT NULL,
    status       TEXT NOT NULL,
    connected    INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    doc          BLOB NOT NULL
);
CREATE INDEX vms_by_pool ON vms (pool_id, vm_id);
CREATE INDEX vms_by_org ON vms (org_id, vm_id);
CREATE INDEX vms_by_status ON vms (status, vm_id);
CREATE INDEX vms_connected ON vms (vm_id) WHERE connected = 1;

CREATE TABLE commands (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    vm_id       TEXT NOT NULL,
    type        TEXT NOT NULL,
    state       TEXT NOT NULL,
    due_at      INTEGER, -- null once ended
    finished_at INTEGER, -- null until ended
    doc         BLOB NOT NULL
);
CREATE INDEX commands_queue ON commands (vm_id, seq) WHERE due_at IS NOT NULL;
CREATE INDEX commands_due ON commands (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX commands_finished ON commands (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX commands_by_vm ON commands (vm_id, seq);
CREATE INDEX commands_by_state ON commands (state, seq);
CREATE INDEX commands_by_type ON commands (type, seq);

CREATE TABLE events (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    vm_id       TEXT NOT NULL,
    type        TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    doc         BLOB NOT NULL
);
CREATE INDEX events_by_vm ON events (vm_id, seq);
CREATE INDEX events_by_type ON events (type, seq);
CREATE INDEX events_by_time ON events (received_at);

-- The heartbeats of one VM that were committed together share a row: docs has one JSON
-- document per line.
CREATE TABLE heartbeats (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    vm_id       TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    docs        BLOB NOT NULL
);
CREATE INDEX heartbeats_by_vm ON heartbeats (vm_id, seq);
CREATE INDEX heartbeats_by_time ON heartbeats (received_at);

-- The log of all changes. vm and command contain the record as of after the change; an
-- event is looked up.
CREATE TABLE changes (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    vm_id     TEXT NOT NULL,
    vm        BLOB,
    command   BLOB,
    event_seq INTEGER
);
CREATE INDEX changes_by_vm ON changes (vm_id, seq);
CREATE INDEX changes_by_time ON changes (at);
