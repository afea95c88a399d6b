package fleet

import (
	"encoding/json"
	"strconv"
)

// members are those of a JSON object. What is absent or malformed reads as nothing.
type members map[string]json.RawMessage

// members returns what an event holds. Over HTTP agents send it at the top level, on the
// stream as texts in data.
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

// text returns a text of at most MaxIDLength bytes.
func (m members) text(name string) (s string) {
	if json.Unmarshal(m[name], &s) != nil || len(s) > MaxIDLength {
		return ""
	}
	return s
}

// name returns a text, or a number as one.
func (m members) name(name string) string {
	var n json.Number
	if json.Unmarshal(m[name], &n) == nil && len(n) <= MaxIDLength {
		return n.String()
	}
	return m.text(name)
}

// number returns a number, or one in a text, of so many units: rounded down, and 0 if it
// is below 1 then or not below limit.
func (m members) number(name string, unit, limit float64) int64 {
	text := m.text(name)
	if text == "" {
		text = string(m[name])
	}
	n, err := strconv.ParseFloat(text, 64)
	if n *= unit; err == nil && n >= 1 && n < limit { // NaN is neither
		return int64(n)
	}
	return 0
}
