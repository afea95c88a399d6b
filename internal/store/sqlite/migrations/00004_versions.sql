-- +goose Up

-- version counts the commits of a row: a commit replaces the version that it was made from,
-- or none.
ALTER TABLE vms DROP COLUMN last_beat;
ALTER TABLE vms ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE vms ADD COLUMN due_at INTEGER; -- null for none
CREATE INDEX vms_due ON vms (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX vms_gone ON vms (last_seen_at) WHERE connected = 0;

-- queue is the queue of its VM that a command is in.
ALTER TABLE commands ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE commands ADD COLUMN queue TEXT; -- null for none
UPDATE commands SET queue = CASE
    WHEN state = 'DELIVERED' THEN 'out'
    WHEN type = 'register_runner' THEN 'token'
    ELSE 'plain' END
WHERE state IN ('PENDING', 'DELIVERED');
DROP INDEX commands_queue;
CREATE INDEX commands_queue ON commands (vm_id, queue, seq) WHERE queue IS NOT NULL;
-- Together with commands_queue it contains all commands in these states. As long as each of
-- them is in a queue, it is empty and costs nothing.
CREATE INDEX commands_unqueued ON commands (seq) WHERE queue IS NULL AND state IN ('PENDING', 'DELIVERED');

-- A change has one document, and kind says of what.
CREATE TABLE documented_changes (
    seq       INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    vm_id     TEXT NOT NULL,
    kind      TEXT NOT NULL,
    event_seq INTEGER, -- of the event that has the document
    doc       BLOB     -- null when an event has it
);
INSERT INTO documented_changes (seq, at, vm_id, kind, event_seq, doc)
SELECT seq, at, vm_id,
    CASE WHEN vm IS NOT NULL THEN 'vm' WHEN command IS NOT NULL THEN 'command' ELSE 'event' END,
    CASE WHEN vm IS NULL AND command IS NULL THEN event_seq END,
    COALESCE(vm, command)
FROM changes;
DROP TABLE changes;
ALTER TABLE documented_changes RENAME TO changes;
