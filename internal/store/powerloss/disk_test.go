package powerloss

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(file int, at int64, text string) event {
	return event{what: written, file: file, pieces: []piece{{at: at, data: []byte(text)}}}
}

// content returns what a power loss leaves after events, by name.
func content(keep Keep, events ...event) map[string]string {
	d := newDisk()
	for _, e := range events {
		d.apply(e)
	}
	left := map[string]string{}
	for name, file := range d.surviving(keep) {
		left[name] = string(d.files[file].surviving(keep))
	}
	return left
}

var (
	create   = event{what: created, file: 1, name: "x"}
	flush    = event{what: synced, file: 1}
	truncate = event{what: written, file: 1, pieces: []piece{{at: 2, truncates: true}}}
	remove   = event{what: deleted, name: "x"}
)

// Synced writes survive; Keep decides about the others.
func TestSyncedIsThere(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		events []event
		none   map[string]string
		all    map[string]string
	}{
		{"created", []event{create}, map[string]string{}, map[string]string{"x": ""}},
		{"written", []event{create, flush, write(1, 0, "abc")}, map[string]string{"x": ""}, map[string]string{"x": "abc"}},
		{"synced", []event{create, write(1, 1, "abc"), flush}, map[string]string{"x": "\x00abc"}, map[string]string{"x": "\x00abc"}},
		{"written over", []event{create, write(1, 0, "abc"), flush, write(1, 2, "de")}, map[string]string{"x": "abc"}, map[string]string{"x": "abde"}},
		{"truncated", []event{create, write(1, 0, "abc"), flush, truncate}, map[string]string{"x": "abc"}, map[string]string{"x": "ab"}},
		{"deleted", []event{create, write(1, 0, "abc"), flush, remove}, map[string]string{"x": "abc"}, map[string]string{}},
		{
			"deleted for good",
			[]event{create, flush, {what: deleted, name: "x", dir: true}},
			map[string]string{},
			map[string]string{},
		},
		{
			"deleted and created again",
			[]event{create, write(1, 0, "a"), flush, remove, {what: created, file: 2, name: "x"}, write(2, 0, "b")},
			map[string]string{"x": "a"},
			map[string]string{"x": "b"},
		},
		{
			"deleted, created again and synced",
			[]event{create, write(1, 0, "a"), flush, remove, {what: created, file: 2, name: "x"}, {what: synced, file: 2}},
			map[string]string{"x": ""},
			map[string]string{"x": ""},
		},
		{
			"failed",
			[]event{create, flush, write(1, 0, "abc"), {what: failed, file: 1}, flush},
			map[string]string{"x": ""},
			map[string]string{"x": ""},
		},
		{
			"failed, and written again",
			[]event{create, flush, write(1, 0, "abc"), {what: failed, file: 1}, write(1, 2, "d"), flush},
			map[string]string{"x": "\x00\x00d"},
			map[string]string{"x": "\x00\x00d"},
		},
		{
			"failed half way",
			[]event{create, flush, write(1, 0, "abc"), {what: failed, file: 1, pieces: []piece{{data: []byte("ab")}}}},
			map[string]string{"x": "ab"},
			map[string]string{"x": "ab"},
		},
	} {
		require.Equal(t, test.none, content(None, test.events...), test.name)
		require.Equal(t, test.none, content(nil, test.events...), test.name)
		require.Equal(t, test.all, content(All, test.events...), test.name)
	}
}

// A write is torn only at sector boundaries.
func TestSectors(t *testing.T) {
	t.Parallel()
	p := piece{at: 500, data: bytes.Repeat([]byte("."), 12+512+1)}
	var at []int64
	for _, s := range p.sectors() {
		at = append(at, s.at)
	}
	require.Equal(t, []int64{500, 512, 1024}, at)

	r := rand.New(rand.NewPCG(1, 1))
	whole, torn := 0, 0
	for range 1000 {
		require.Contains(t, []int{0, 3}, len(Writes(r).of([]piece{p})))
		switch len(Sectors(r).of([]piece{p})) {
		case 0, 3:
			whole++
		default:
			torn++
		}
	}
	require.NotZero(t, whole)
	require.NotZero(t, torn)
}
