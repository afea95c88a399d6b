package registration_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/registration"
)

const secret = "AS3CR3T-T0K3N"

var start = time.Date(2026, 1, 2, 15, 4, 5, 123456789, time.UTC)

const keyRunner = "runner"

func clock() time.Time { return start }

// However a runner is printed, alone or within another value, its token and the assumed
// expiry are hidden, and the rest is shown.
func TestARunnerNeverShowsItsToken(t *testing.T) {
	t.Parallel()
	r := registration.Runner{
		Token: secret, ExpiresAt: start, URL: "https://ci.example/org", Group: "builders", Labels: []string{"self-hosted"},
	}
	type holder struct{ R registration.Runner }
	values := map[string]any{
		"value": r, "pointer": &r, "field": holder{r}, "pointer to field": &holder{r},
		"list": []registration.Runner{r}, "map": map[string]registration.Runner{"r": r},
		"any": []any{r, &r},
	}
	for name, v := range values {
		outputs := map[string]string{"json": marshal(t, v), "error": fmt.Errorf("with %v", v).Error()}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%20v", "%-20.3s", "%T %[1]v"} {
			outputs[verb] = fmt.Sprintf(verb, v)
		}
		outputs["slog text"], outputs["slog json"] = logged(v)
		for how, out := range outputs {
			requireNoToken(t, out, fmt.Sprintf("%s as %s: %s", name, how, out))
			require.NotContains(t, out, start.Format("T15:04"), "%s as %s", name, how)
		}
		for _, how := range []string{"json", "%v", "%+v", "slog text", "slog json"} {
			require.Contains(t, outputs[how], "builders", "%s as %s", name, how)
		}
	}
	require.Contains(t, registration.Runner{}.String(), "token none")
}

// requireNoToken also checks for the token in the forms of the verbs %x and %X.
func requireNoToken(t *testing.T, out, what string) {
	t.Helper()
	for _, shown := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret)} {
		require.NotContains(t, out, shown, what)
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	require.NoError(t, err)
	return string(out)
}

func logged(v any) (text, js string) {
	var a, b bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&a, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).With(keyRunner, v).Info("made", keyRunner, v, slog.Group(keyRunner, keyRunner, v))
	}
	return a.String(), b.String()
}

// No source, Registrar or error reveals a token, even when printed with all its fields.
func TestNothingElseShowsATokenEither(t *testing.T) {
	t.Parallel()
	good := registration.StaticToken(secret, clock)
	bad := registration.StaticToken(secret+" x", clock)
	r, err := registration.New(registration.Options{Source: good})
	require.NoError(t, err)
	broken, err := registration.New(registration.Options{Source: bad})
	require.NoError(t, err)
	_, err = broken.Runner(t.Context(), "", nil)
	require.Error(t, err)
	for _, v := range []any{good, bad, r, *r, r.Describe(), err, errors.Unwrap(err), registration.Options{Source: good}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			requireNoToken(t, fmt.Sprintf(verb, v), fmt.Sprintf("%T as %s", v, verb))
		}
		text, js := logged(v)
		requireNoToken(t, text+js, fmt.Sprintf("%T logged", v))
	}
}
