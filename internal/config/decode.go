package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Each decoder reads one option and returns an *OptionError: kong's errors would contain the
// value, which may be a token.

func decodeText(ctx *kong.DecodeContext, target reflect.Value) error {
	text, err := popValue(ctx)
	target.SetString(text)
	return err
}

func decodeNumber(ctx *kong.DecodeContext, target reflect.Value) error {
	text, err := popValue(ctx)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return invalidValue(ctx, "must be a whole number")
	}
	target.SetInt(int64(n))
	return nil
}

func decodeDuration(ctx *kong.DecodeContext, target reflect.Value) error {
	text, err := popValue(ctx)
	if err != nil {
		return err
	}
	d, err := parseDuration(text)
	if err != nil {
		return invalidValue(ctx, durationRule)
	}
	target.SetInt(int64(d))
	return nil
}

func decodeList(ctx *kong.DecodeContext, target reflect.Value) error {
	text, err := popValue(ctx)
	if err != nil || text == "" {
		return err
	}
	for item := range strings.SplitSeq(text, ",") {
		target.Set(reflect.Append(target, reflect.ValueOf(strings.TrimSpace(item))))
	}
	return nil
}

const switchRule = "must be true or false"

// switchMapper decodes boolean options.
type switchMapper struct{}

// IsBool reports that the flag needs no value.
func (switchMapper) IsBool() bool { return true }

// Decode reads the value of the flag, if there is one.
func (switchMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		target.SetBool(true)
		return nil
	}
	switch strings.ToLower(fmt.Sprint(ctx.Scan.Pop().Value)) {
	case "true", "yes", "on", "1":
		target.SetBool(true)
	case "false", "no", "off", "0":
		target.SetBool(false)
	default:
		return invalidValue(ctx, switchRule)
	}
	return nil
}

// popValue returns the value of an option.
func popValue(ctx *kong.DecodeContext) (string, error) {
	t, err := ctx.Scan.PopValue("")
	if err != nil {
		return "", invalidValue(ctx, "needs a value: --"+ctx.Value.Name+"=VALUE")
	}
	return fmt.Sprint(t.Value), nil
}

func invalidValue(ctx *kong.DecodeContext, rule string) error {
	return &OptionError{Option: ctx.Value.Name, Rule: rule}
}

const durationRule = "must be a duration such as 30s, 15m, 24h or 30d"

// parseDuration is time.ParseDuration with days of 24 hours, which come first.
func parseDuration(s string) (time.Duration, error) {
	days, rest, given := strings.Cut(s, "d")
	if !given {
		return time.ParseDuration(s)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("days: %w", err)
	}
	d := time.Duration(n) * 24 * time.Hour
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	return d + more, err
}
