package internal_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Packages of this module are named by their directories. The rules apply to the product: test
// files may import anything.

// layers are the packages of the product from the bottom up. A package may import from the
// layers below its own. A new package needs a place here, and in the table of CONTRIBUTING.md.
var layers = [][]string{
	{"internal/diskspace", "internal/fleet", "internal/logkey", "internal/loglimit", "internal/metric", "internal/ratelimit", "internal/readiness", "internal/requestid", "internal/wallclock"},
	{"internal/auth"},
	{"internal/audit", "internal/store", "internal/journal", "internal/heartbeatjson", "internal/rpc/heartbeat", "internal/tracing", "internal/traceexport", "internal/auth/oidc"},
	{"internal/store/sqlite", "internal/store/memory", "internal/store/storetest", "internal/engine", "internal/registration"},
	{"internal/control", "internal/session", "internal/maintenance"},
	{"internal/rpc", "internal/httpserver", "internal/config", "internal/sim", "internal/cli"},
	{"internal/app"},
	{"internal/e2e", "internal/crash", "internal/faults", "internal/monitoring", "internal/testkit", "internal/store/powerloss", "internal/apidoc", "cmd"},
}

// prometheus is the client with which packages register metrics.
const prometheus = "github.com/prometheus/client_golang/prometheus"

// What a rule can name other than a package and all below it.
const (
	everything = "everything"
	thirdParty = "third parties"
)

// rules are restrictions in addition to the layers.
var rules = []struct {
	from   string
	except []string // below from
	to     []string
	but    []string // of to
	why    string
}{
	{
		from: "internal/fleet", to: []string{thirdParty},
		why: "the rules of the fleet must outlive every library",
	},
	{
		from: "internal/wallclock", to: []string{thirdParty},
		why: "packages that all others use depend on nothing",
	},
	{
		from: "internal/readiness", to: []string{thirdParty},
		why: "packages that all others use depend on nothing",
	},
	{
		from: "internal/diskspace", to: []string{thirdParty},
		why: "packages that all others use depend on nothing",
	},
	{
		from: "internal/logkey", to: []string{thirdParty},
		why: "packages that all others use depend on nothing",
	},
	{
		from: "internal/loglimit", to: []string{thirdParty},
		why: "packages that all others use depend on nothing",
	},
	{
		from: "internal/metric", to: []string{thirdParty}, but: []string{prometheus, prometheus + "/collectors", prometheus + "/promhttp"},
		why: "packages that all others use depend on little",
	},
	{
		from: "internal/requestid", to: []string{thirdParty},
		why: "packages that all others use depend on nothing",
	},
	{
		from: everything, except: []string{"internal/app"}, to: []string{"internal/traceexport"},
		why: "where traces go is decided in one place",
	},
	{
		from: everything, except: []string{"internal/tracing", "internal/traceexport", "internal/rpc", "internal/app"}, to: []string{"go.opentelemetry.io"},
		why: "what a span of a command contains is decided in package tracing",
	},
	{
		from: everything, except: []string{"internal/auth/oidc", "internal/testkit"}, to: []string{"github.com/coreos/go-oidc", "github.com/go-jose"},
		why: "what makes an identity token valid is decided in one place",
	},
	{
		from: "internal/config", to: []string{"internal/auth/oidc"},
		why: "options are plain values: reading them asks no issuer",
	},
	{
		from: "internal/ratelimit", to: []string{thirdParty}, but: []string{"golang.org/x/time/rate"},
		why: "packages that all others use depend on little",
	},
	{
		from: "internal/fleet", to: []string{"os", "io", "net", "database", "log", "context", "sync"},
		why: "without input and output, every state can be tested",
	},
	{
		from: everything, except: []string{"internal/rpc", "internal/sim", "internal/cli", "internal/apidoc", "internal/testkit", "gen"},
		to:  []string{"gen", "google.golang.org/protobuf"},
		why: "generated types stay in the packages of the wire: changes of the schema must not reach the domain",
	},
	{
		from: "internal/control", to: []string{"internal/session"},
		why: "a command reaches its agent through the engine: only what is durable may be sent",
	},
	{
		from: "internal/session", to: []string{"internal/control"},
		why: "delivery must not depend on who asked for it",
	},
	{
		from: "internal/maintenance", to: []string{"internal/session", "internal/control"},
		why: "background work declares what it needs from the sessions, and can be tested without them",
	},
	{
		from: "internal", except: []string{
			"internal/diskspace", "internal/journal", "internal/store/sqlite", "internal/rpc", "internal/httpserver", "internal/app", "internal/cli", "internal/testkit",
		},
		to:  []string{"syscall", "golang.org/x/sys"},
		why: "what an errno means is decided where files are written and connections are served",
	},
	{
		from: "internal/store", to: []string{"internal/fleet"},
		why: "a driver contains no domain rules: it can be written from the contract alone",
	},
	{
		from: everything, except: []string{"internal/store/sqlite"}, to: []string{"database/sql"},
		why: "a driver can be replaced only if no package depends on more than the contract",
	},
	{
		from: everything, except: []string{"internal/app"}, to: []string{"internal/store/sqlite", "internal/store/memory"},
		why: "which driver is used is decided in one place",
	},
	{
		from: "internal/config", to: []string{"internal/store", "internal/engine", "internal/control", "internal/session", "net/http"},
		why: "options are checked before the controller starts; what they mean is decided where they are used",
	},
	{
		from: "internal/httpserver", to: []string{
			"internal/fleet", "internal/store", "internal/journal", "internal/engine", "internal/registration",
			"internal/control", "internal/session", "connectrpc.com",
		},
		why: "it serves any http.Handler: the HTTP server can be replaced without knowledge of the API",
	},
	{
		from: "internal/sim", to: []string{"internal"},
		why: "simulated agents that shared code with the controller would share its mistakes",
	},
	{
		from: "internal/cli", to: []string{"internal"},
		why: "the command line uses the API like every other client",
	},
	{
		from: everything, to: []string{"internal/store/storetest", "internal/store/powerloss", "internal/e2e", "internal/crash", "internal/faults", "internal/monitoring", "internal/testkit"},
		why: "these are for tests",
	},
	{
		from: everything, to: []string{"internal/apidoc"},
		why: "descriptions of the API are generated before the build; programs embed the result",
	},
	{
		from: "cmd", to: []string{
			"internal/fleet", "internal/store", "internal/journal", "internal/engine", "internal/registration",
			"internal/control", "internal/session", "internal/maintenance", "internal/rpc", "internal/httpserver", "internal/config",
		},
		why: "a program is only a main function; app, sim and cli do the wiring, where tests can use it",
	},
}

// vague are names that do not say what a package is about.
var vague = []string{"util", "utils", "common", "helper", "helpers", "type", "types", "model", "models", "misc", "shared"}

// Every import of the product follows the layers and the rules.
func TestImportDirections(t *testing.T) {
	t.Parallel()
	imports := productImports(t)
	require.Contains(t, imports, "internal/fleet", "the module's packages are found")
	require.Contains(t, imports["internal/app"], "internal/rpc", "their imports are found")
	require.Empty(t, strings.Join(violations(imports), "\n"))
}

// Each rule is checked: an import that violates it is reported with the reason.
func TestImportDirectionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ from, to, why string }{
		{"internal/fleet", "example.com/clock", "outlive every library"},
		{"internal/metric", "golang.org/x/sync/errgroup", "depend on little"},
		{"internal/ratelimit", "golang.org/x/sync/errgroup", "depend on little"},
		{"internal/fleet", "net/http", "every state can be tested"},
		{"internal/fleet", "internal/store", "imports upward"},
		{"internal/store", "internal/session", "imports upward"},
		{"internal/journal", "internal/store", "the same layer"},
		{"internal/registration", "internal/session", "imports upward"},
		{"internal/engine", "internal/registration", "the same layer"},
		{"internal/store/memory", "internal/fleet", "no domain rules"},
		{"internal/control", "internal/session", "through the engine"},
		{"internal/session", "internal/control", "who asked for it"},
		{"internal/maintenance", "internal/session", "tested without them"},
		{"internal/session", "syscall", "what an errno means"},
		{"internal/session", "gen/go/migcontroller/v1", "packages of the wire"},
		{"internal/app", "google.golang.org/protobuf/proto", "packages of the wire"},
		{"internal/rpc", "internal/app", "imports upward"},
		{"internal/config", "internal/auth/oidc", "plain values"},
		{"internal/rpc", "github.com/coreos/go-oidc/v3/oidc", "decided in one place"},
		{"internal/auth", "internal/auth/oidc", "imports upward"},
		{"internal/config", "internal/control", "decided where they are used"},
		{"internal/config", "internal/session", "decided where they are used"},
		{"internal/config", "internal/httpserver", "the same layer"},
		{"internal/httpserver", "internal/config", "the same layer"},
		{"internal/httpserver", "internal/rpc", "the same layer"},
		{"internal/httpserver", "internal/session", "without knowledge of the API"},
		{"internal/httpserver", "connectrpc.com/connect", "without knowledge of the API"},
		{"internal/httpserver", "gen/go/migcontroller/v1", "packages of the wire"},
		{"internal/rpc", "internal/httpserver", "the same layer"},
		{"internal/rpc", "internal/store/sqlite", "in one place"},
		{"internal/rpc", "database/sql", "more than the contract"},
		{"internal/sim", "internal/fleet", "share its mistakes"},
		{"internal/cli", "internal/control", "every other client"},
		{"internal/app", "internal/store/storetest", "for tests"},
		{"internal/store/sqlite", "internal/store/powerloss", "for tests"},
		{"internal/rpc", "internal/apidoc", "embed the result"},
		{"cmd/controller", "internal/rpc", "main function"},
		{"internal/weather", "fmt", "has no layer"},
	} {
		got := violations(map[string][]string{test.from: {test.to}})
		require.Contains(t, strings.Join(got, "\n"), test.why, "%s imports %s", test.from, test.to)
	}
	require.Empty(t, violations(map[string][]string{
		"internal/fleet":     {"strings"},
		"internal/ratelimit": {"golang.org/x/time/rate"},
		"internal/metric":    {prometheus},
		"internal/session":   {"internal/registration", "internal/store", "log/slog", "golang.org/x/sync/errgroup"},
		"internal/rpc":       {"gen/go/migcontroller/v1", "internal/session"},
		"cmd/controller":     {"internal/app"},
		"internal/config":    {"internal/registration", "github.com/alecthomas/kong"},
	}))
}

// Layers and rules are about packages that exist, so none outlives what it was for.
func TestRulesNameExistingPackages(t *testing.T) {
	t.Parallel()
	named := slices.Concat(layers...)
	for _, r := range rules {
		named = slices.Concat(named, []string{r.from}, r.except, r.to)
	}
	for _, pkg := range named {
		if within("internal", pkg) || within("cmd", pkg) || within("gen", pkg) {
			require.DirExists(t, filepath.Join("..", filepath.FromSlash(pkg)))
		}
	}
}

// No package has a vague name.
func TestPackageNames(t *testing.T) {
	t.Parallel()
	for pkg := range productImports(t) {
		require.NotContains(t, vague, path.Base(pkg), "%s: name a package after what it is about", pkg)
	}
}

// violations returns a line for each import that violates the layers or a rule.
func violations(imports map[string][]string) []string {
	var lines []string
	for from, tos := range imports {
		if _, known := layerOf(from); !known && !within("gen", from) {
			lines = append(lines, fmt.Sprintf("%s has no layer: give it one in this test and in CONTRIBUTING.md", from))
		}
		for _, to := range tos {
			for _, why := range faults(from, to) {
				lines = append(lines, fmt.Sprintf("%s must not import %s: %s", from, to, why))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func faults(from, to string) []string {
	var whys []string
	for _, r := range rules {
		concerned := within(r.from, from) && !slices.ContainsFunc(r.except, func(p string) bool { return within(p, from) })
		if concerned && slices.ContainsFunc(r.to, func(p string) bool { return within(p, to) }) && !slices.Contains(r.but, to) {
			whys = append(whys, r.why)
		}
	}
	own, known := layerOf(from)
	other, internal := layerOf(to)
	switch {
	case !known || !internal || own > other:
	case own < other:
		whys = append(whys, "it imports upward")
	default:
		whys = append(whys, "both are in the same layer")
	}
	return whys
}

func layerOf(pkg string) (layer int, known bool) {
	for i, pkgs := range layers {
		if slices.Contains(pkgs, pkg) || within("cmd", pkg) && slices.Contains(pkgs, "cmd") {
			return i, true
		}
	}
	return 0, false
}

// within reports whether pattern matches pkg.
func within(pattern, pkg string) bool {
	first, _, _ := strings.Cut(pkg, "/")
	switch pattern {
	case everything:
		return true
	case thirdParty:
		return strings.Contains(first, ".")
	default:
		return pkg == pattern || strings.HasPrefix(pkg, pattern+"/")
	}
}

// productImports returns the imports of each package of the module outside of its tests, for
// all platforms.
func productImports(t *testing.T) map[string][]string {
	t.Helper()
	const root = ".."
	module := moduleName(t, root)
	imports := map[string][]string{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && file != root && isForeign(file, entry.Name()):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(dir)
		imports[pkg], err = addImports(imports[pkg], file, module)
		return err
	})
	require.NoError(t, err)
	return imports
}

// addImports returns known with the imports of the file added.
func addImports(known []string, file, module string) ([]string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	for _, spec := range parsed.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		if name = strings.TrimPrefix(name, module+"/"); !slices.Contains(known, name) {
			known = append(known, name)
		}
	}
	return known, nil
}

// isForeign reports whether the go command treats a directory as outside of the module.
func isForeign(dir, name string) bool {
	if name == "testdata" || name == "node_modules" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func moduleName(t *testing.T, root string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	for line := range strings.Lines(string(content)) {
		if name, found := strings.CutPrefix(line, "module "); found {
			return strings.TrimSpace(name)
		}
	}
	require.Fail(t, "go.mod names no module")
	return ""
}
