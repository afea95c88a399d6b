package engine

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/memory"
)

// A program does not start on documents of a later version, and the error names the
// versions.
func TestLaterEncoding(t *testing.T) {
	t.Parallel()
	db := memory.New()
	start := func() (*Engine, error) {
		return Start(t.Context(), Options{
			Driver: shared{db}, Log: slog.New(slog.DiscardHandler), Clock: func() time.Time { return t0 },
		})
	}
	e, err := start()
	require.NoError(t, err)
	require.NoError(t, e.Close())
	written, err := db.Mark(t.Context(), encodingMark)
	require.NoError(t, err)
	require.EqualValues(t, encoding, written)

	_, err = db.Commit(t.Context(), store.Writes{Marks: map[string]int64{encodingMark: encoding + 1}})
	require.NoError(t, err)
	_, err = start()
	require.ErrorIs(t, err, errLaterEncoding)
	require.ErrorContains(t, err, fmt.Sprint("version ", encoding+1))
	require.ErrorContains(t, err, fmt.Sprint("up to ", encoding))
}

// The members of the documents are those of when the version of the encoding was last
// raised: a change of one must raise the other; then run this test with UPDATE_ENCODING=1.
func TestEncodingHasItsVersion(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	fmt.Fprintln(&b, "version", encoding)
	for _, document := range []any{fleet.VM{}, fleet.Command{}, fleet.Event{}, fleet.Heartbeat{}} {
		members(&b, reflect.TypeOf(document), reflect.TypeOf(document).Name())
	}
	file := filepath.Join("testdata", "encoding.txt")
	known, err := os.ReadFile(file)
	version, _, _ := strings.Cut(string(known), "\n")
	if os.Getenv("UPDATE_ENCODING") != "" && version != fmt.Sprint("version ", encoding) {
		known, err = []byte(b.String()), os.WriteFile(file, []byte(b.String()), 0o600)
	}
	require.NoError(t, err)
	require.Equal(t, string(known), b.String(), "the documents have changed: raise the version of the encoding")
}

// members writes a line for each member of the documents of a type.
func members(b *strings.Builder, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8 {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		fmt.Fprintln(b, path, t.Kind())
		return
	}
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || tag == "-":
		case f.Anonymous && tag == "":
			members(b, f.Type, path)
		case tag == "":
			members(b, f.Type, path+"."+f.Name)
		default:
			members(b, f.Type, path+"."+tag)
		}
	}
}
