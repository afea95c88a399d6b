//go:build unix

package cli

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// recipe is a recipe of docs/security.md that is followed in a directory of its own.
type recipe struct {
	t       *testing.T
	page    string
	text    string // of the recipe
	address string // of the controller
	bash    *bash
	words   []string // those of the page, and what is in their place here
}

// startRecipe returns a recipe by its title. Its controller gets a loopback address that no
// other test uses.
func startRecipe(t *testing.T, title, host string, words ...string) *recipe {
	t.Helper()
	page := readPage(t, "docs", "security.md")
	_, text, found := strings.Cut(page, "\n### Recipe: "+title+"\n")
	require.True(t, found, title)
	text, _, _ = strings.Cut(text, "\n## ")
	text, _, _ = strings.Cut(text, "\n### ")
	dir := t.TempDir()
	require.NoError(t, os.Symlink(binaries(t), filepath.Join(dir, "bin")))
	address, agents := freeAddress(t, host), freeAddress(t, host)
	words = append(words,
		"localhost:8080", address, "https://controller.example.com:8080", "http://"+address,
		"./bin/migletsim ", "./bin/migletsim --controller http://"+agents+" ",
	)
	return &recipe{t, page, text, address, startBash(t, dir, "CONTROLLER_HTTP_ADDR="+address, "CONTROLLER_GRPC_ADDR="+agents), words}
}

// follow runs the commands of a part of the recipe. They must print what it shows.
func (r *recipe) follow(part string) {
	r.t.Helper()
	all := sessions(part)
	require.NotEmpty(r.t, all)
	before, _, _ := strings.Cut(r.page, part)
	here := strings.NewReplacer(r.words...)
	for _, s := range all {
		s.command = here.Replace(s.command)
		for i := range s.shown {
			s.shown[i] = here.Replace(s.shown[i])
		}
		s.line += strings.Count(before, "\n")
		r.bash.eventually("docs/security.md", s)
	}
}

// Tokens for a team: each does what its role allows, a viewer's drain is rejected with a helpful
// message, and the audit shows who drained what and why.
func TestRecipeOfTokens(t *testing.T) {
	t.Parallel()
	r := startRecipe(t, "tokens for a team", "127.83.17.11")
	r.follow(r.text)
	require.Equal(t, []string{""}, r.bash.run("find . -maxdepth 1 -name '*.token' -perm /077"), "others can read tokens")
}

// provider signs Ann in, as the recipe's provider does, and gives tokens to workflows.
type provider struct {
	t       *testing.T
	issuer  *testkit.Issuer
	claims  map[string]any
	pending bool // whether the sign-in has been waited for
}

// ServeHTTP implements http.Handler.
func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := func(status int, content map[string]any) {
		text, err := json.Marshal(content)
		if err != nil {
			status = http.StatusInternalServerError
		}
		w.WriteHeader(status)
		_, _ = w.Write(text) // curl shows a broken answer
	}
	const base = "/realms/acme/protocol/openid-connect"
	switch {
	case r.URL.Path == "/job" && r.Header.Get("Authorization") == "Bearer of-the-job" && r.URL.Query().Get("audience") == p.claims["aud"]:
		answer(http.StatusOK, map[string]any{"count": 1, "value": p.issuer.Token(p.t, p.claims)})
	case r.URL.Path == base+"/auth/device" && r.PostFormValue("client_id") == p.claims["aud"] && r.PostFormValue("scope") == "openid":
		answer(http.StatusOK, map[string]any{
			"device_code": "device+code", "interval": 0, "verification_uri_complete": "http://" + r.Host + "/realms/acme/device?user_code=WDJB-MJHT",
		})
	case r.URL.Path != base+"/token":
		p.issuer.ServeHTTP(w, r)
	case r.PostFormValue("device_code") == "device code" && !p.pending: // a form's plus is a space
		p.pending = true
		answer(http.StatusBadRequest, map[string]any{"error": "authorization_pending"})
	case r.PostFormValue("device_code") == "device code" || r.PostFormValue("refresh_token") == "refresh/+token":
		answer(http.StatusOK, map[string]any{"refresh_token": "refresh/+token", "id_token": p.issuer.Token(p.t, p.claims)})
	default:
		answer(http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
	}
}

// startProvider serves an issuer with a path, and returns its base URL.
func startProvider(t *testing.T, path string, claims map[string]any) (base string) {
	t.Helper()
	p := &provider{t: t, claims: claims}
	server := httptest.NewUnstartedServer(p)
	base = "http://" + server.Listener.Addr().String()
	p.issuer = testkit.NewIssuer(t, base+path)
	server.Start()
	t.Cleanup(server.Close)
	return base
}

// Identity tokens: a person signs in with a provider, and a workflow drains without a stored
// secret, from its own branch only.
func TestRecipeOfIdentityTokens(t *testing.T) {
	t.Parallel()
	job := map[string]any{
		"aud": "mig-controller", "sub": "repo:acme/deploy:ref:refs/heads/main", "repository": "acme/deploy", "ref": "refs/heads/main",
	}
	people := startProvider(t, "/realms/acme", map[string]any{
		"aud": "migctl", "sub": "f3a1", "preferred_username": "ann", "email": "ann@acme.example", "groups": []string{"hall", "platform"},
	})
	workflows := startProvider(t, "", job)
	r := startRecipe(t, "identity tokens", "127.83.17.12", "https://login.example.com", people, "https://token.actions.githubusercontent.com", workflows)
	before, rest, found := strings.Cut(r.text, "```yaml\n")
	require.True(t, found)
	workflow, after, found := strings.Cut(rest, "```\n")
	require.True(t, found)
	r.follow(before)
	r.bash.eventually("the simulated VM", session{command: "./bin/migctl vms | grep -c linux", shown: []string{"2"}})
	require.Contains(t, r.runWorkflow(workflow, workflows), "1 of 1 accepted, 1 succeeded")
	r.follow(after)
	job["ref"] = "refs/heads/topic"
	require.Contains(t, r.runWorkflow(workflow, workflows), "no rule of the issuer")
}

// runWorkflow runs the steps of a workflow as a job of GitHub Actions, and returns their output.
func (r *recipe) runWorkflow(text, issuer string) string {
	r.t.Helper()
	var workflow struct {
		Name        string
		Permissions map[string]string
		Jobs        map[string]struct{ Steps []struct{ Run string } }
	}
	require.NoError(r.t, yaml.Unmarshal([]byte(text), &workflow))
	require.Equal(r.t, "write", workflow.Permissions["id-token"])
	b := startBash(r.t, r.t.TempDir(), "PATH="+binaries(r.t)+":"+os.Getenv("PATH"),
		"ACTIONS_ID_TOKEN_REQUEST_URL="+issuer+"/job?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=of-the-job",
		"GITHUB_RUN_ID=4711", "GITHUB_WORKFLOW="+workflow.Name)
	var out []string
	for _, step := range workflow.Jobs["drain"].Steps {
		out = append(out, b.run(strings.NewReplacer(r.words...).Replace(step.Run))...)
	}
	return strings.Join(out, "\n")
}

// Client certificates: the one that the recipe makes is accepted, also by curl. One of another
// CA is not.
func TestRecipeOfClientCertificates(t *testing.T) {
	t.Parallel()
	const host = "127.83.17.13"
	r := startRecipe(t, "client certificates", host)
	ip, _, err := net.SplitHostPort(r.address)
	require.NoError(t, err)
	r.words = append([]string{"DNS:localhost", "IP:" + ip}, r.words...)
	r.follow(r.text)

	first, _, found := strings.Cut(r.text, "\n\nClient certificates need TLS")
	require.True(t, found)
	r.bash.run("mkdir other && cd other")
	r.follow(first)
	refused := strings.Join(r.bash.run(strings.NewReplacer(r.words...).Replace(
		"../bin/migctl whoami --address https://localhost:8080 --ca-file ../controller.pem; ../bin/migctl config set-context other "+
			"--address https://localhost:8080 --ca-file ../controller.pem --cert-file alice.pem --key-file alice.key; ../bin/migctl whoami --context other")), "\n")
	require.Contains(t, refused, "credentials are required")
	require.Contains(t, refused, "The server may require a client certificate, or another one")
	require.NotContains(t, refused, "Role ")
}
