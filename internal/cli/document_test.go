package cli

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// texts are strings that are known to break parsers or terminals.
var texts = []string{
	"", "no", "Y", "on", "NULL", "~", "true", "1", "1_000", "0x1f", "0o7", "1e3", ".inf", ".NaN", "-", "--- a", "...", "<<", "=", "12:30:45", "2026-01-02",
	"a: b", "a #b", "#", "a:", ":", "- a", "? a", "&a", "*a", "!!int 3", "|", ">", "%a", "@a", "`", "{}", "[]", "{a", "'", "\"", "\\", "''", "a\nb", "\n", "a\n\n", " a", "a ", "\ta",
	"a\r\nb", "\x00", "\x1b[2J\x1b]0;owned\a", "\u009b2J", "\u0085", "\u007f", "\u2028", "\u2029", "\u202egnp.exe", "\u2066a\u2069", "\u200f", "\u061c", "\ufeff", "\ufffe",
	"\ufffd", "\U000e0041", "\U0010ffff", "\U0001f600", "\U0001f468\u200d\U0001f469", "e\u0301", "\u00a0", "\u00ad", "\ue000", strings.Repeat("long text ", 40), strings.Repeat("k", 2000),
}

// anyText returns a random string that an agent may send.
func anyText(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(4) {
		if r.IntN(2) == 0 {
			b.WriteString(texts[r.IntN(len(texts))])
			continue
		}
		limits := []int{0x20, 0x80, 0xa0, 0x3000, unicode.MaxRune}
		b.WriteRune(rune(r.IntN(limits[r.IntN(len(limits))])))
	}
	return strings.ToValidUTF8(b.String(), "?")
}

// requireHarmless fails if the output contains a character that could control a terminal.
func requireHarmless(t *testing.T, output string) {
	t.Helper()
	for _, r := range output {
		require.True(t, r == '\n' || unicode.IsPrint(r), "%U in %q", r, output)
	}
}

// Whatever strings agents report, JSON and YAML output parse to the same strings, and no
// output format contains characters that control a terminal.
func TestArbitraryText(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for round := range len(texts) + 30 {
		d := newDriver(t)
		first := anyText(r)
		if round < len(texts) {
			first = texts[round]
		}
		key := anyText(r)
		body, err := structpb.NewStruct(map[string]any{"type": first, "data": map[string]any{first: anyText(r), "x" + key: []any{first, 1.5e300, true, nil}}})
		require.NoError(t, err)
		d.fleet.vms = []*migcontrollerv1.VM{
			{VmId: "vm-1", AgentVersion: first, Status: anyText(r), Runner: &migcontrollerv1.Runner{Labels: []string{first, anyText(r)}}},
		}
		d.fleet.events = []*migcontrollerv1.Event{{EventId: 1, VmId: "vm-1", Type: first, Body: body}}
		for _, args := range [][]string{{"vms"}, {"vm", "vm-1"}, {"events"}} {
			asJSON, stderr, code := d.run(append(args, "-o", "json")...)
			require.Zero(t, code, stderr)
			var fromJSON, fromYAML any
			require.NoError(t, json.Unmarshal([]byte(asJSON), &fromJSON))
			asYAML, stderr, code := d.run(append(args, "-o", "yaml")...)
			require.Zero(t, code, stderr)
			require.NoError(t, yaml.NewDecoder(bytes.NewBufferString(asYAML)).Decode(&fromYAML), asYAML)
			reencoded, err := json.Marshal(fromYAML)
			require.NoError(t, err, asYAML)
			require.JSONEq(t, asJSON, string(reencoded), asYAML)
			requireHarmless(t, asJSON+asYAML)
			for _, format := range []string{"table", "wide"} {
				shown, stderr, _ := d.run(append(args, "-o", format)...)
				requireHarmless(t, shown+stderr)
			}
			vm, isVM := fromJSON.(map[string]any)
			if isVM {
				require.Equal(t, first, vm["agentVersion"])
			}
		}
	}
}

// Errors contain no characters that control a terminal, in any output format.
func TestArbitraryTextInErrors(t *testing.T) {
	t.Parallel()
	for _, text := range texts {
		for _, format := range []string{"table", "json", "yaml"} {
			d := newDriver(t)
			d.fleet.fail = func(any) error { return notFound("%s", text+"\u009b!") }
			_, stderr, _ := d.run("vm", "vm-1", "-o", format)
			requireHarmless(t, stderr)
			d.fleet.fail = nil
			_, stderr, _ = d.run("send", "vm-1", "drain", "--id", text+"\u202e!", "--wait", "1s", "-o", format)
			requireHarmless(t, stderr)
		}
	}
}

// Strings that YAML 1.1 parsers read as other types are quoted.
func TestYAMLQuoting(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"no": `"no"`, "Off": `"Off"`, "y": `"y"`, "12": `"12"`, "": `""`, "a\x1b": `"a\e"`, "\u202e": `"\U0000202e"`, "idle": "idle", "a: b": "'a: b'",
	} {
		document, err := json.Marshal(text)
		require.NoError(t, err)
		got, err := jsonToYAML(document)
		require.NoError(t, err)
		require.Equal(t, want+"\n", string(got))
	}
}
