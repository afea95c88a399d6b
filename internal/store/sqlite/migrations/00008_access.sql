-- +goose Up

-- doc contains the token as JSON, with the hash of its secret.
CREATE TABLE tokens (
    id      TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    doc     BLOB NOT NULL
);

-- Rows are only added, and removed when they expire.
CREATE TABLE audit (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    principal  TEXT NOT NULL,
    action     TEXT NOT NULL,
    vm_id      TEXT, -- null for none
    command_id TEXT, -- null for none
    outcome    TEXT NOT NULL,
    doc        BLOB NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_principal ON audit (principal, seq);
CREATE INDEX audit_by_action ON audit (action, seq);
CREATE INDEX audit_by_vm ON audit (vm_id, seq) WHERE vm_id IS NOT NULL;
CREATE INDEX audit_by_command ON audit (command_id, seq) WHERE command_id IS NOT NULL;
CREATE INDEX audit_by_outcome ON audit (outcome, seq) WHERE outcome <> 'ok';
