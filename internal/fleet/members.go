package fleet

import (
	"encoding/json"
	"strconv"
)

// members are the members of a JSON object. Absent and malformed ones read as zero values.
type members map[string]json.RawMessage

// members returns the members of an event. Over HTTP agents send them at the top level, on
// the stream as texts in data.
func (e Event) members() members {
	m := membersOf(e.Body)
	if e.Via == Stream {
		m = membersOf(m["data"])
	}
	return m
}

func membersOf(object json.RawMessage) (m members) {
	if json.Unmarshal(object, &m) != nil {
		return nil
	}
	return m
}

// text returns a text of at most MaxIDLength bytes, otherwise "".
func (m members) text(name string) (s string) {
	if json.Unmarshal(m[name], &s) != nil || len(s) > MaxIDLength {
		return ""
	}
	return s
}

// name returns a text, or a number as text.
func (m members) name(name string) string {
	var n json.Number
	if json.Unmarshal(m[name], &n) == nil && len(n) <= MaxIDLength {
		return n.String()
	}
	return m.text(name)
}

// number returns a number, given as such or as a text, times unit: rounded down, and 0 if
// the product is below 1 or not below limit.
func (m members) number(name string, unit, limit float64) int64 {
	text := m.text(name)
	if text == "" {
		text = string(m[name])
	}
	n, err := strconv.ParseFloat(text, 64)
	if n *= unit; err == nil && n >= 1 && n < limit { // false for NaN
		return int64(n)
	}
	return 0
}
