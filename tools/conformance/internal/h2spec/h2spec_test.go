package h2spec

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A failure, an error and a skip are not passes, and unescaped messages are accepted.
func TestParse(t *testing.T) {
	t.Parallel()
	got, err := parse(xml.NewDecoder(strings.NewReader(`<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="1. Starting HTTP/2" package="generic/1" tests="1">
    <testcase package="generic/1" classname="Sends a preface" time="0.0029"></testcase>
  </testsuite>
  <testsuite name="6.5. SETTINGS" package="http2/6.5" tests="4">
    <testcase package="http2/6.5" classname="Sends one"><failure>SETTINGS & more</failure></testcase>
    <testcase package="http2/6.5" classname="Sends another"></testcase>
    <testcase package="http2/6.5" classname="Sends a third"><error>Connection closed</error></testcase>
    <testcase package="http2/6.5" classname="Sends a fourth"><skipped></skipped></testcase>
  </testsuite>
</testsuites>`)))
	require.NoError(t, err)
	require.Equal(t, map[string]bool{
		"generic/1/1": true, "http2/6.5/1": false, "http2/6.5/2": true, "http2/6.5/3": false, "http2/6.5/4": false,
	}, got)

	_, err = parse(xml.NewDecoder(strings.NewReader("<testsuites>")))
	require.Error(t, err, "an incomplete report is an error")
}
