-- +goose Up

-- All heartbeats of a commit share a row, whatever their VMs. Each VM's part of
-- docs begins with a line of its id and the row with those before.
UPDATE heartbeats SET docs = CAST(vm_id || ' ' || previous || char(10) || rtrim(docs, char(10)) || char(10) AS BLOB);
ALTER TABLE heartbeats DROP COLUMN vm_id;
ALTER TABLE heartbeats DROP COLUMN previous;

-- A command that ends well never touches this one.
DROP INDEX commands_by_state;
CREATE INDEX commands_failed ON commands (state, seq) WHERE state NOT IN ('PENDING', 'DELIVERED', 'SUCCEEDED');

-- Who follows one VM is told where its next change is.
DROP INDEX changes_by_vm;
