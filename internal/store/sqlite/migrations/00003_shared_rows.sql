-- +goose Up

-- All heartbeats of a commit share a row, whatever their VMs. Each VM's part of docs begins
-- with a line with its id and its previous row.
UPDATE heartbeats SET docs = CAST(vm_id || ' ' || previous || char(10) || rtrim(docs, char(10)) || char(10) AS BLOB);
ALTER TABLE heartbeats DROP COLUMN vm_id;
ALTER TABLE heartbeats DROP COLUMN previous;

-- Commands that succeed never touch this index.
DROP INDEX commands_by_state;
CREATE INDEX commands_failed ON commands (state, seq) WHERE state NOT IN ('PENDING', 'DELIVERED', 'SUCCEEDED');

-- Each change of a VM has the number of its next one, so there is no index by VM. The
-- latest change is never removed, so no number is assigned twice; ensuring that by
-- AUTOINCREMENT would cost a page in every transaction.
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
