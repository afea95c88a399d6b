-- +goose Up

-- All heartbeats of a commit share a row, whatever their VMs. Each VM's part of
-- docs begins with a line of its id and the row with those before.
UPDATE heartbeats SET docs = CAST(vm_id || ' ' || previous || char(10) || rtrim(docs, char(10)) || char(10) AS BLOB);
ALTER TABLE heartbeats DROP COLUMN vm_id;
ALTER TABLE heartbeats DROP COLUMN previous;

-- A command that ends well never touches this one.
DROP INDEX commands_by_state;
CREATE INDEX commands_failed ON commands (state, seq) WHERE state NOT IN ('PENDING', 'DELIVERED', 'SUCCEEDED');

-- Who follows one VM is told where its next change is, so there is no index by VM.
-- The latest change is never removed, so no number is given twice; to have SQLite
-- see to that by AUTOINCREMENT costs a page in every transaction.
CREATE TABLE numbered_changes (
    seq       INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    vm_id     TEXT NOT NULL,
    vm        BLOB,
    command   BLOB,
    event_seq INTEGER
);
INSERT INTO numbered_changes SELECT seq, at, vm_id, vm, command, event_seq FROM changes;
DROP TABLE changes;
ALTER TABLE numbered_changes RENAME TO changes;
