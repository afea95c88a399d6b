-- +goose Up

-- The pool that the VM is in after the change, and the one that it was in before if that is
-- another one; null for none. Changes of earlier versions have neither: whoever is limited to
-- some pools does not see them.
ALTER TABLE changes ADD COLUMN pool_id TEXT;
ALTER TABLE changes ADD COLUMN left_pool_id TEXT;
