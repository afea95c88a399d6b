-- +goose Up

-- What is written most is only appended to. An index by VM is not: nearly every
-- row of a group lands on a page of its own. So each heartbeat names the one
-- before it of the same VM, and the VM names its last.
ALTER TABLE vms ADD COLUMN last_beat INTEGER NOT NULL DEFAULT 0;
ALTER TABLE heartbeats ADD COLUMN previous INTEGER NOT NULL DEFAULT 0;
UPDATE heartbeats SET previous = COALESCE((SELECT MAX(h.seq) FROM heartbeats h
    WHERE h.vm_id = heartbeats.vm_id AND h.seq < heartbeats.seq), 0);
UPDATE vms SET last_beat = COALESCE((SELECT MAX(h.seq) FROM heartbeats h
    WHERE h.vm_id = vms.vm_id), 0);
DROP INDEX heartbeats_by_vm;

-- Rows of these are in the order of time.
DROP INDEX heartbeats_by_time;
DROP INDEX changes_by_time;
