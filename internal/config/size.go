package config

import (
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/mig-controller/mig-controller/internal/journal"
)

// Size is a number of bytes, or journal.AutoMinFree.
type Size int64

const (
	autoSize = "auto"
	sizeRule = "must be 0 or a whole number with a unit, such as 500MiB or 2GiB"
)

// sizeUnits are the units of sizes.
var sizeUnits = map[string]int64{
	"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
}

var errNotSize = errors.New("not a size")

// parseSize parses a size.
func parseSize(s string) (Size, error) {
	switch s {
	case autoSize:
		return journal.AutoMinFree, nil
	case "0":
		return 0, nil
	}
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	unit, known := sizeUnits[strings.TrimSpace(s[digits:])]
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	if !known || err != nil || n > math.MaxInt64/unit {
		return 0, errNotSize
	}
	return Size(n * unit), nil
}

func decodeSize(ctx *kong.DecodeContext, target reflect.Value) error {
	text, err := popValue(ctx)
	if err != nil {
		return err
	}
	n, err := parseSize(text)
	if err != nil {
		return invalidValue(ctx, sizeRule)
	}
	target.SetInt(int64(n))
	return nil
}
