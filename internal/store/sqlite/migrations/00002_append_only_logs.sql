-- +goose Up

-- The largest tables are append-only. An index by VM is not: nearly every row of a group
-- lands on a different page of it. So each heartbeat has the number of the previous one of
-- its VM, and the VM has that of its last one.
ALTER TABLE vms ADD COLUMN last_beat INTEGER NOT NULL DEFAULT 0;
ALTER TABLE heartbeats ADD COLUMN previous INTEGER NOT NULL DEFAULT 0;
UPDATE heartbeats SET previous = COALESCE((SELECT MAX(h.seq) FROM heartbeats h
    WHERE h.vm_id = heartbeats.vm_id AND h.seq < heartbeats.seq), 0);
UPDATE vms SET last_beat = COALESCE((SELECT MAX(h.seq) FROM heartbeats h
    WHERE h.vm_id = vms.vm_id), 0);
DROP INDEX heartbeats_by_vm;

-- Rows of these tables are in order of time.
DROP INDEX heartbeats_by_time;
DROP INDEX changes_by_time;
