package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
)

const (
	// tokenCommandTimeout limits a run of a token_command.
	tokenCommandTimeout = 30 * time.Second
	// tokenCommandErrors is how many bytes of its stderr are shown.
	tokenCommandErrors = 2048
)

// bearer returns the option that sends the token, or nil if there is none, and sets
// in.credentials. Errors never contain the token.
func (in *invocation) bearer(t target) (connect.ClientOption, error) {
	c, err := in.newCredentials(t)
	if c == nil || err != nil {
		return nil, err
	}
	var options []migclient.TokenOption
	if t.PlaintextToken {
		options = append(options, migclient.PlaintextToken)
	}
	bearer, err := migclient.WithTokenSource(t.Address, c.current, options...)
	if errors.Is(err, migclient.ErrPlaintextToken) {
		return nil, &failure{
			code: exitUsage, text: fmt.Sprintf("refusing to send the token to %s: it would travel unencrypted", t.Address),
			hint: "Use an https address. --plaintext-token sends it anyway.",
		}
	}
	if err != nil {
		return nil, err
	}
	in.credentials = c
	return bearer, nil
}

// credentials are the token that is sent with every call. A nil pointer is no token. They
// are safe for concurrent use.
type credentials struct {
	// source is the origin of the token for messages, such as "context lab: token_file".
	source string
	// fetch runs the token_command or reads the file; nil for a token that does not change.
	fetch func(context.Context) (string, error)

	lock  sync.Mutex
	token string
	// generation counts the tokens that were fetched. works is set once the controller has
	// accepted the latest.
	generation int
	works      bool
}

// newCredentials returns the credentials of a target, or nil if it has no token.
func (in *invocation) newCredentials(t target) (*credentials, error) {
	given := 0
	for _, field := range []string{t.Token, t.TokenFile, t.TokenCommand} {
		if field != "" {
			given++
		}
	}
	switch {
	case given == 0:
		return nil, nil //nolint:nilnil // no token
	case t.socket() != "":
		return nil, t.invalid("a token", "must not be given with a unix address: access to the socket is enough")
	case given > 1:
		return nil, t.invalid("token, token_file and token_command", "exclude each other")
	case t.TokenCommand != "":
		c := &credentials{source: t.fieldName("token_command")}
		c.fetch = func(ctx context.Context) (string, error) { return in.runTokenCommand(ctx, c.source, t.TokenCommand) }
		return c, nil
	}
	c := &credentials{token: t.Token, source: cmp.Or(t.tokenSource, t.fieldName("token"))}
	if t.TokenFile == "" {
		return c, checkToken(c.source, c.token)
	}
	c.source = cmp.Or(t.tokenSource, t.fieldName("token_file"))
	c.fetch = func(context.Context) (string, error) { return readToken(c.source, t.TokenFile) }
	var err error
	if c.token, err = readToken(c.source, t.TokenFile); err == nil {
		in.warnReadable(t.TokenFile)
	}
	return c, err
}

func checkToken(source, token string) error {
	if !validToken(token) {
		return usage("%s must contain one token: 1 to %d visible ASCII characters without spaces", source, tokenLimit)
	}
	return nil
}

func validToken(token string) bool {
	visible := func(r rune) bool { return r > ' ' && r <= '~' }
	return token != "" && len(token) <= tokenLimit && strings.TrimFunc(token, visible) == ""
}

// readToken returns the token in a file. Errors name the source.
func readToken(source, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", usage("%s must be a readable file: %v", source, err)
	}
	defer func() { _ = f.Close() }() // opened read-only
	// The extra bytes allow for a line ending, and detect a token that is too long.
	content, err := io.ReadAll(io.LimitReader(f, tokenLimit+3))
	if err != nil {
		return "", usage("%s must be a readable file: %v", source, err)
	}
	token := strings.TrimSpace(string(content))
	return token, checkToken(source, token)
}

// current returns the token, which use has fetched.
func (c *credentials) current(context.Context) (string, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.token, nil
}

// use fetches the first token if necessary, and returns the generation of the current one.
// It is called before a call, whose timeout is not for the token_command.
func (c *credentials) use(ctx context.Context) (generation int, err error) {
	if c == nil {
		return 0, nil
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.token == "" {
		c.token, err = c.fetch(ctx)
	}
	return c.generation, err
}

// accepted remembers that the controller accepts the token.
func (c *credentials) accepted() {
	if c == nil {
		return
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	c.works = true
}

// renew reports whether another try may help after a call that ended with err: there is a
// newer token than that of the generation that the call used. If the controller has refused
// this one, renew fetches another. It does not when a renewed token was refused at once:
// another would be refused too.
func (c *credentials) renew(ctx context.Context, used int, err error) (renewed bool, failed error) {
	if c == nil || c.fetch == nil {
		return false, nil
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	switch {
	case connect.CodeOf(err) != connect.CodeUnauthenticated:
		c.works = c.works || err == nil || connect.IsWireError(err)
		return false, nil
	case c.generation > used:
		return true, nil
	case c.generation > 0 && !c.works:
		return false, nil
	}
	token, failed := c.fetch(ctx)
	if failed != nil || token == c.token {
		return false, failed
	}
	c.token, c.works = token, false
	c.generation++
	return true, nil
}

// runTokenCommand returns the token that a command prints. Errors contain what it printed to
// stderr, and never what it printed to stdout.
func (in *invocation) runTokenCommand(ctx context.Context, source, command string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, in.tokenCommandTimeout)
	defer cancel()
	shell, flag := "sh", "-c"
	if runtime.GOOS == "windows" {
		shell, flag = "cmd", "/C"
	}
	cmd := exec.CommandContext(limited, shell, flag, command) //nolint:gosec // the user's own config file says so
	for name, value := range in.environ {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	stdout, stderr := &head{limit: tokenLimit + 3}, &head{limit: tokenCommandErrors}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = time.Second // for children that keep the streams open
	err := cmd.Run()
	token := strings.TrimSpace(stdout.String())
	f := &failure{code: exitFailed, hint: strings.TrimSpace(stderr.String())}
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case limited.Err() != nil:
		f.text = fmt.Sprintf("%s printed no token within %s", source, formatDuration(in.tokenCommandTimeout))
	case err != nil:
		f.text = fmt.Sprintf("%s failed: %v", source, err)
	case !validToken(token):
		f.text = fmt.Sprintf("%s must print one token: 1 to %d visible ASCII characters without spaces", source, tokenLimit)
	default:
		return token, nil
	}
	return "", f
}

// head keeps the beginning of what is written to it.
type head struct {
	bytes.Buffer
	limit int
}

// Write implements io.Writer.
func (h *head) Write(p []byte) (int, error) {
	h.Buffer.Write(p[:min(len(p), h.limit-h.Len())])
	return len(p), nil
}
