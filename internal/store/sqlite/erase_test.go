package sqlite

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// plant is in every secret document.
const plant = "PLANTED-SECRET"

func secretDoc(n int) []byte { return []byte(strings.Repeat(plant+" ", 1+n/(len(plant)+1))) }

// inFiles returns how often the plant is in the files of the database.
func inFiles(t *testing.T, db *DB) (n int) {
	t.Helper()
	files, err := filepath.Glob(db.path + "*")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		n += bytes.Count(text, []byte(plant))
	}
	return n
}

// What is replaced in a command is soon in none of the files, although the row grew, moved to
// other pages and was removed in between, next to others.
func TestErase(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	random := rand.New(rand.NewPCG(1, 2))
	var open []store.CommandRow
	put := func(rows []store.CommandRow, erase bool) {
		done := commit(t, db, store.Writes{Commands: rows, Erase: erase})
		for i := range rows {
			rows[i].Seq, rows[i].Version = done.Commands[i], rows[i].Version+1
		}
	}
	for i := range 300 {
		row := store.CommandRow{ID: fmt.Sprintf("c%d", i), VM: "a", Type: "x", State: "PENDING", Queue: "q", Doc: secretDoc(random.IntN(12_000))}
		if i%3 == 0 {
			row.Doc = secretDoc(random.IntN(500))
		}
		open = append(open, row)
		put(open[i:], false)
	}
	for range 300 { // as deliveries do
		i := random.IntN(len(open))
		open[i].Doc = append(open[i].Doc, secretDoc(random.IntN(400))...)
		put(open[i:i+1], false)
	}
	require.NotZero(t, inFiles(t, db))
	for i := range open {
		open[i].State, open[i].Queue, open[i].Doc, open[i].FinishedAt = "FAILED", "", []byte("ended"), t0
		put(open[i:i+1], true)
	}
	db.checkpoints.every = 0
	require.NoError(t, db.Check(t.Context()))
	require.Zero(t, inFiles(t, db))
	require.False(t, db.checkpoints.erase)
}

// A reader delays the erasure of the log, and its end is noticed.
func TestEraseBehindAReader(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	require.True(t, db.checkpoints.erase, "an earlier run may have been killed")
	db.checkpoints.every = 0
	require.NoError(t, db.Check(t.Context()))
	require.False(t, db.checkpoints.erase)
	commit(t, db, store.Writes{Commands: []store.CommandRow{{ID: "c", VM: "a", Doc: secretDoc(9000)}}})
	require.False(t, db.checkpoints.erase)
	end := reading(t, db)
	commit(t, db, store.Writes{Commands: []store.CommandRow{{Seq: 1, Version: 1, ID: "c", VM: "a", Doc: []byte("x")}}, Erase: true})
	require.NotZero(t, inFiles(t, db))
	require.True(t, db.checkpoints.erase)
	end()
	require.NoError(t, db.Check(t.Context()))
	require.Zero(t, inFiles(t, db))

	db.checkpoints.erase, db.checkpoints.every = true, time.Minute
	require.Equal(t, eraseAfter, db.checkpoints.interval())
}

// Removed rows are overwritten too, also after others were removed that contain no secrets.
func TestPurgeErases(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	_, err := db.Purge(t.Context(), store.Cutoffs{Now: t0, Changes: t0, Heartbeats: t0, Events: t0}, 10)
	require.NoError(t, err)
	for i := range 100 {
		commit(t, db, store.Writes{Commands: []store.CommandRow{{ID: fmt.Sprint("c", i), VM: "a", FinishedAt: t0, Doc: secretDoc(i * 100)}}})
	}
	for removed := 1; removed > 0; {
		removed, err = db.Purge(t.Context(), store.Cutoffs{Now: t0.Add(time.Hour), Commands: t0.Add(time.Hour)}, 1000)
		require.NoError(t, err)
	}
	db.checkpoints.every = 0
	require.NoError(t, db.Check(t.Context()))
	require.Zero(t, inFiles(t, db))
}
