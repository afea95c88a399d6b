package sqlite

import (
	"errors"
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// errColumn occurs when a column contains a value that this program never writes there.
// SQLite stores a value of any type in a column of any type; a converted value would make
// rows appear that no query finds.
var errColumn = errors.New("the column has an unexpected value")

// damagedAt returns the error of a row with damaged columns; it returns other errors
// unchanged.
func damagedAt(class store.Class, row int64, err error) error {
	if !errors.Is(err, errColumn) {
		return err
	}
	return &damagedRowError{store.Place{Class: class, Row: row}, err}
}

// damagedRowError is a row that cannot be read, with the reason.
type damagedRowError struct {
	place store.Place
	error
}

// damage collects the damaged rows of a query. The zero value has none.
type damage []store.Place

// note adds the row of a damagedRowError, and returns any other error.
func (d *damage) note(err error) error {
	row, ok := errors.AsType[*damagedRowError](err)
	if ok {
		*d = append(*d, row.place)
		return nil
	}
	return err
}

// noteAll adds the rows of a *store.DamagedError, and returns any other error.
func (d *damage) noteAll(err error) error {
	if damaged, ok := errors.AsType[*store.DamagedError](err); ok {
		*d = append(*d, damaged.Places...)
		return nil
	}
	return err
}

// err returns a *store.DamagedError, or nil if there is no damaged row.
func (d *damage) err() error {
	if len(*d) == 0 {
		return nil
	}
	return &store.DamagedError{Places: *d}
}

// The column types. Those whose names begin with any are nullable.
type (
	number    int64
	counter   int64 // at least one
	anyNumber int64
	flag      bool
	text      string
	anyText   string
	moment    time.Time
	anyMoment time.Time
	// document is a BLOB. It may also be text, as people write it, and NULL in a nullable
	// column.
	document []byte
)

// Scan implements sql.Scanner.
func (n *number) Scan(v any) error { return take64(v, (*int64)(n)) }

// Scan implements sql.Scanner.
func (n *counter) Scan(v any) error {
	if err := take64(v, (*int64)(n)); err != nil || *n < 1 {
		return errColumn
	}
	return nil
}

// Scan implements sql.Scanner.
func (n *anyNumber) Scan(v any) error {
	if v == nil {
		*n = 0
		return nil
	}
	return take64(v, (*int64)(n))
}

func take64(v any, n *int64) error {
	read, ok := v.(int64)
	if !ok {
		return errColumn
	}
	*n = read
	return nil
}

// Scan implements sql.Scanner.
func (f *flag) Scan(v any) error {
	var n int64
	if err := take64(v, &n); err != nil || n < 0 || n > 1 {
		return errColumn
	}
	*f = n == 1
	return nil
}

// Scan implements sql.Scanner.
func (t *text) Scan(v any) error {
	read, ok := v.(string)
	if !ok {
		return errColumn
	}
	*t = text(read)
	return nil
}

// Scan implements sql.Scanner.
func (t *anyText) Scan(v any) error {
	if v == nil {
		*t = ""
		return nil
	}
	return (*text)(t).Scan(v)
}

// Scan implements sql.Scanner.
func (m *moment) Scan(v any) error {
	var n int64
	if err := take64(v, &n); err != nil {
		return err
	}
	*m = moment(timeOf(n))
	return nil
}

// Scan implements sql.Scanner.
func (m *anyMoment) Scan(v any) error {
	if v == nil {
		*m = anyMoment{}
		return nil
	}
	return (*moment)(m).Scan(v)
}

// Scan implements sql.Scanner.
func (d *document) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*d = nil
	case []byte:
		*d = slices.Clone(v) // the driver owns v only until the next row
	case string:
		*d = []byte(v)
	default:
		return errColumn
	}
	return nil
}
