-- +goose Up

-- With these columns VMs are counted without reading the table. An update that changes one of
-- them writes to this index anyway.
DROP INDEX vms_by_pool;
CREATE INDEX vms_by_pool ON vms (pool_id, vm_id, status, connected);
