package powerloss_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/mig-controller/mig-controller/internal/store/powerloss"
)

const (
	// seedVariable is the environment variable that repeats a failure.
	seedVariable = "POWERLOSS_SEED"
	// timesVariable is the environment variable that multiplies the number of power losses.
	timesVariable = "POWERLOSS_TIMES"
)

// dice returns a random source; the log of a failed test says how to repeat it.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("repeat with %s=%d", seedVariable, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// options of a connection.
type options struct {
	vfs         string
	synchronous string
	checkpoint  int // frames, 0: only explicit ones
	cache       int // pages
}

func open(t *testing.T, path string, o options) *sql.DB {
	t.Helper()
	db := connect(t, path, o)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// connect is open for callers that close it themselves.
func connect(t *testing.T, path string, o options) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", fmt.Sprintf("file:%s?vfs=%s&_pragma=busy_timeout(5000)&_pragma=synchronous(%s)&_pragma=wal_autocheckpoint(%d)&_pragma=cache_size(%d)",
		path, o.vfs, o.synchronous, o.checkpoint, o.cache))
	require.NoError(t, err)
	return db
}

// bank is a database in WAL mode that counts its commits.
type bank struct {
	t    *testing.T
	v    *powerloss.VFS
	path string
	db   *sql.DB
	dice *rand.Rand
	// answered are the acknowledged attempts, in order: the first is of row 1.
	answered []attempt
	attempts int
	created  int  // moment; before it the tables may be missing
	big      bool // each commit fills pages of its own
}

type attempt struct {
	number int
	moment int
}

// newBank creates a bank with durable tables and some rows.
func newBank(t *testing.T, r *rand.Rand, o options) *bank {
	t.Helper()
	b := &bank{t: t, v: powerloss.Register(t), dice: r}
	b.path = filepath.Join(t.TempDir(), "bank.db")
	o.vfs = b.v.Name()
	b.db = open(t, b.path, o)
	b.exec("PRAGMA page_size=1024")
	b.exec("PRAGMA journal_mode=WAL")
	b.exec("CREATE TABLE total (n INTEGER); CREATE TABLE rows (id INTEGER PRIMARY KEY, attempt INTEGER, body BLOB, tag TEXT)")
	b.exec("CREATE INDEX tags ON rows (tag); INSERT INTO total VALUES (0)")
	b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	b.created = b.v.Moment()
	return b
}

// after returns the bank that the next process opens.
func (b *bank) after(db string, v *powerloss.VFS, o options) *bank {
	b.t.Helper()
	o.vfs = v.Name()
	next := &bank{t: b.t, v: v, path: db, dice: b.dice, answered: slices.Clone(b.answered), attempts: b.attempts}
	if v == b.v {
		next.created = b.created
	} else {
		for i := range next.answered {
			next.answered[i].moment = 0
		}
	}
	next.db = open(b.t, db, o)
	return next
}

func (b *bank) exec(query string) {
	b.t.Helper()
	_, err := b.db.ExecContext(b.t.Context(), query)
	require.NoError(b.t, err)
}

// commit adds one row and changes others.
func (b *bank) commit() error {
	b.attempts++
	err := b.add(b.t.Context(), len(b.answered)+1, b.attempts)
	if err == nil {
		b.answered = append(b.answered, attempt{number: b.attempts, moment: b.v.Moment()})
	}
	return err
}

func (b *bank) add(ctx context.Context, id, number int) error {
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	size := b.dice.IntN(1500)
	if b.big {
		size += 20_000
	}
	if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", id, number, body(id, number, size), tag(id, number)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "UPDATE rows SET tag = tag || '.' WHERE id % 7 = ?", id%7); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "UPDATE total SET n = ?", id); err != nil {
		return err
	}
	return tx.Commit()
}

func (b *bank) commits(n int) {
	b.t.Helper()
	for range n {
		require.NoError(b.t, b.commit())
	}
}

func body(id, number, size int) []byte {
	return bytes.Repeat([]byte{byte(id), byte(number)}, size/2+1)[:size]
}

func tag(id, number int) string { return fmt.Sprintf("%d/%d", id, number) }

// lost returns what is wrong with a database after a power loss at a moment: nil if it is
// consistent and contains the commits acknowledged until then.
func (b *bank) lost(path string, moment int) error {
	b.t.Helper()
	// The pragmas are for speed: what is durable from here on does not matter.
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=locking_mode(EXCLUSIVE)&_pragma=synchronous(OFF)")
	require.NoError(b.t, err)
	defer db.Close()
	if moment < b.created {
		return whole(b.t.Context(), db)
	}
	return check(b.t.Context(), db, b.answeredAt(moment))
}

func (b *bank) answeredAt(moment int) []attempt {
	n, _ := slices.BinarySearchFunc(b.answered, moment, func(a attempt, moment int) int { return cmp.Compare(a.moment, moment+1) })
	return b.answered[:n]
}

func whole(ctx context.Context, db *sql.DB) error {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&verdict); err != nil {
		return fmt.Errorf("corrupt: %w", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("corrupt: %s", verdict)
	}
	return nil
}

func check(ctx context.Context, db *sql.DB, answered []attempt) error {
	if err := whole(ctx, db); err != nil {
		return err
	}
	rows, err := db.QueryContext(ctx, "SELECT id, attempt, body, tag, n FROM rows, total ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	n, total := 0, 0
	for rows.Next() {
		var id, number int
		var content []byte
		var name string
		if err := rows.Scan(&id, &number, &content, &name, &total); err != nil {
			return err
		}
		n++
		switch {
		case id != n, !bytes.Equal(content, body(id, number, len(content))), !strings.HasPrefix(name, tag(id, number)):
			return fmt.Errorf("row %d is not as it was written", id)
		case n <= len(answered) && answered[n-1].number != number:
			return fmt.Errorf("lost: row %d is of attempt %d, not %d", id, number, answered[n-1].number)
		}
	}
	switch {
	case rows.Err() != nil:
		return rows.Err()
	case n != total:
		return fmt.Errorf("%d rows exist, but the total is %d", n, total)
	case n < len(answered):
		return fmt.Errorf("lost: %d commits were acknowledged, but %d exist", len(answered), n)
	}
	return nil
}

// powerLosses tries n power losses, at random moments after from, and returns the error of
// each that was not survived.
func (b *bank) powerLosses(from, n int, keep func(*rand.Rand) powerloss.Keep) map[int]error {
	b.t.Helper()
	dir := b.t.TempDir()
	wrong := map[int]error{}
	seen := map[string]bool{} // equal states are checked once
	if text := os.Getenv(timesVariable); text != "" {
		times, err := strconv.Atoi(text)
		require.NoError(b.t, err)
		n *= times
	}
	moments := make([]int, n)
	for i := range moments {
		moments[i] = from + b.dice.IntN(b.v.Moment()-from+1)
	}
	slices.Sort(moments)
	for _, moment := range moments {
		path := b.v.SnapshotAt(moment, dir, keep(b.dice))
		if state := b.state(path, moment); !seen[state] {
			seen[state] = true
			if err := b.lost(path, moment); err != nil {
				wrong[moment] = err
			}
		}
	}
	return wrong
}

// state returns a key for the content of a database and what it must contain.
func (b *bank) state(path string, moment int) string {
	b.t.Helper()
	files, err := filepath.Glob(path + "*")
	require.NoError(b.t, err)
	hash := sha256.New()
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(b.t, err)
		fmt.Fprintln(hash, file, len(content))
		hash.Write(content)
	}
	return fmt.Sprintf("%x %d", hash.Sum(nil), len(b.answeredAt(moment)))
}
