-- +goose Up

-- Rows that cannot be read, unchanged. doc is their document, and restore the statement
-- that puts a row back into its table with the current content of doc.
CREATE TABLE damaged (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    class    TEXT NOT NULL,    -- the table that it was in
    row      INTEGER NOT NULL, -- its rowid there
    id       TEXT,             -- of the VM or the command; null if unreadable
    vm_id    TEXT,             -- null if unreadable, or if there are several
    why      TEXT NOT NULL,
    found_at INTEGER NOT NULL, -- in Unix nanoseconds
    restore  TEXT NOT NULL,
    doc      BLOB
);
CREATE INDEX damaged_by_id ON damaged (class, id) WHERE id IS NOT NULL;
