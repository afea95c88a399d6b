package apidoc

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/rpc"
)

var pageFile = filepath.Join("..", "..", "docs", "api.md")

// The page matches the schema and a real controller: each call is made as printed, and each
// response is the printed one except for volatile values. Requests and responses match the
// OpenAPI document.
func TestPage(t *testing.T) {
	t.Parallel()
	s := loadSchema(t)
	content, err := os.ReadFile(pageFile)
	require.True(t, err == nil || os.Getenv("UPDATE_API") == "1", "the page is missing: make api writes it")
	sh := newShell(t, startController(t))
	sh.awaitRunners(t, s)

	answers := make([]Answer, len(calls))
	printedKept, kept := map[string]string{}, map[string]string{}
	for i, c := range calls {
		got := sh.runUntil(t, s.command(c, kept), c.until)
		require.Equal(t, c.status, got.Status, "%s: %s\n%s", c.rpc, c.body, got.Text)
		answers[i] = c.withoutSecret(got)
		if printed, ok := printedAnswer(string(content), s.command(c, printedKept)); ok && stable(t, printed) == stable(t, answers[i].Text) {
			answers[i].Text = printed
		}
		c.keepFrom(got, kept)
		c.keepFrom(answers[i], printedKept)
	}
	page, err := s.Page(answers)
	require.NoError(t, err)
	requireCommitted(t, pageFile, page)
	requireDocumented(t, s, sh.exchanges)
}

// withoutSecret returns the response with the secret of the page in place of the real one.
func (c call) withoutSecret(a Answer) Answer {
	if secret := a.text("secret"); secret != "" {
		a.Text = strings.ReplaceAll(a.Text, secret, c.shown)
	}
	return a
}

// The secrets in the page have the right form, but not the checksum: nobody takes them for
// leaked ones.
func TestSecretsAreInvented(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^migc_[A-Z2-7]{33}$`)
	created := 0
	for _, c := range calls {
		if c.rpc == "CreateToken" && c.status == http.StatusOK {
			created++
			require.Regexp(t, form, c.shown)
			require.False(t, auth.IsSecret(c.shown), c.shown)
		}
	}
	require.NotZero(t, created)
	page, err := os.ReadFile(pageFile)
	require.NoError(t, err)
	for _, secret := range regexp.MustCompile(`migc_\w+`).FindAllString(string(page), -1) {
		require.False(t, auth.IsSecret(secret), secret)
	}
}

// awaitRunners waits until the simulated agents have registered their runners.
func (s *shell) awaitRunners(t *testing.T, schema Schema) {
	t.Helper()
	for _, vm := range []string{"sim-vm-0001", "sim-vm-0002", "sim-vm-0003"} {
		s.runUntil(t, schema.command(call{rpc: "GetVM", body: `{"vmId": "` + vm + `"}`}, nil), `"registeredAt"`)
	}
}

// printedAnswer returns the response to a command in the page.
func printedAnswer(page, command string) (string, bool) {
	_, rest, shown := strings.Cut(page, "```sh\n"+command+"\n```\n\n```json\n")
	answer, _, ended := strings.Cut(rest, "\n```\n")
	return answer, shown && ended
}

// Every unary method, every route and the watch have an example call.
func TestEveryMethodHasACall(t *testing.T) {
	t.Parallel()
	s := loadSchema(t)
	called := map[string]bool{}
	for _, c := range calls {
		called[c.rpc] = called[c.rpc] || !c.onRoute()
		called[c.rpc+" by its route"] = called[c.rpc+" by its route"] || c.onRoute()
	}
	for _, service := range []protoreflect.FullName{adminService, accessService, agentService} {
		for _, m := range methods(s.service(service)) {
			require.True(t, called[string(m.Name())], "%s has no call", m.FullName())
		}
	}
	for _, r := range rpc.AgentRoutes() {
		require.True(t, called[r.RPC+" by its route"], "%s has no call", r.Pattern)
	}
}

// Every message, field, enum and value of the schema has a comment, and every link in the page
// leads to exactly one heading.
func TestPageIsComplete(t *testing.T) {
	t.Parallel()
	page, err := loadSchema(t).Page(make([]Answer, len(calls)))
	require.NoError(t, err)
	require.NotContains(t, page, "|  |\n", "a description is missing")
	headings := map[string]int{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		headings[strings.ToLower(heading[1])]++
	}
	links := regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(page, -1)
	require.NotEmpty(t, links)
	for _, link := range links {
		require.Equal(t, 1, headings[link[1]], "#%s", link[1])
	}
}
