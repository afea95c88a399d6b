package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// secretPrefix begins the secret of every token of the controller.
const secretPrefix = "migc_"

type tokenCmd struct {
	Create createTokenCmd `cmd:"" help:"Create a token and print its secret."`
	List   listTokensCmd  `cmd:"" help:"List tokens, latest first."`
	Revoke revokeTokenCmd `cmd:"" help:"End a token."`
}

// Help returns the command's help text.
func (tokenCmd) Help() string {
	return examples(
		"A token is what a person or a tool proves with who it is. From the first token on, the controller requires "+
			"credentials of operators.",
		"migctl token create ann --role operator",
		"migctl token list",
	)
}

type createTokenCmd struct {
	Name  string   `arg:"" help:"The name of the person or the tool, which the audit shows."`
	Role  string   `required:"" enum:"viewer,operator,admin" placeholder:"ROLE" help:"What its holder may do: viewer (look), operator (also send and cancel commands) or admin (also manage access and the controller)."`
	Pools []string `placeholder:"A,B" help:"Limit its holder to the VMs of these pools. Default: your own pools."`
	TTL   duration `name:"ttl" placeholder:"TIME" help:"How long it is valid, 1m to 3650d. Default: 90d."`
	reasonFlag
}

// Help returns the command's help text.
func (createTokenCmd) Help() string {
	return examples(
		"Prints the secret to stdout, once: the controller does not store it. Everything else goes to stderr. Nobody "+
			"can create a token that may do more than they may themselves.",
		"migctl token create ann --role operator > ann.token",
		"migctl token create nightly-report --role viewer --ttl 30d -o json",
	)
}

// Run creates a token.
func (cmd createTokenCmd) Run(ctx context.Context, in *invocation) error {
	req := &migcontrollerv1.CreateTokenRequest{
		Name: cmd.Name, Pools: cmd.Pools, Reason: cmd.Reason,
		Role: migcontrollerv1.Role(migcontrollerv1.Role_value[rolePrefix+strings.ToUpper(cmd.Role)]),
	}
	if cmd.TTL > 0 {
		req.Ttl = durationpb.New(time.Duration(cmd.TTL))
	}
	if err := in.dial(); err != nil {
		return err
	}
	res, err := callRPC(ctx, in, 0, in.access.CreateToken, req)
	if in.uncertain(err) {
		f := *in.explain(err)
		if ctx.Err() != nil {
			in.freshLine()
			f = failure{code: exitInterrupted, text: "interrupted"}
		}
		f.text += "; a token may have been created"
		f.hint = "Nobody has its secret: if migctl token list shows it, end it with migctl token revoke."
		return &f
	}
	if err != nil {
		return err
	}
	if in.structured() {
		return in.writeRecord(res, table{})
	}
	t := res.GetToken()
	fmt.Fprintf(in.stderr, "Created token %s for %s: %s of %s, valid until %s.\nIts secret is shown only now:\n",
		printable(t.GetId()), printable(t.GetName()), roleName(t.GetRole()), poolsText(t.GetPools()), orDash(in.whenBoth(t.GetExpiresAt()).text))
	_, err = fmt.Fprintln(in.stdout, printable(res.GetSecret()))
	return err
}

func poolsText(pools []string) string {
	switch len(pools) {
	case 0:
		return "all pools"
	case 1:
		return "pool " + printable(pools[0])
	default:
		return "pools " + printable(strings.Join(pools, ", "))
	}
}

type listTokensCmd struct {
	All   bool `help:"Also those that have expired or were revoked; they are kept for 30 days."`
	Limit int  `default:"50" placeholder:"N" help:"Show at most N tokens (${default}); 0 means all."`
}

// Help returns the command's help text.
func (listTokensCmd) Help() string {
	return examples("", "migctl token list", "migctl token list --all -o wide")
}

// Run lists tokens.
func (cmd listTokensCmd) Run(ctx context.Context, in *invocation) error {
	if err := checkLimit(cmd.Limit); err != nil {
		return err
	}
	if err := in.dial(); err != nil {
		return err
	}
	req := &migcontrollerv1.ListTokensRequest{IncludeEnded: cmd.All}
	tokens, more, err := listPages(cmd.Limit, func(size int32, token string) ([]*migcontrollerv1.Token, string, error) {
		req.PageSize, req.PageToken = size, token
		res, err := callRPC(ctx, in, 0, in.access.ListTokens, req)
		return res.GetTokens(), res.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	emptyMessage := "There is no token. To create one: migctl token create NAME --role ROLE"
	if err := writeList(in, tokens, in.tokenTable(tokens), emptyMessage); err != nil {
		return err
	}
	in.noteMore(more)
	return nil
}

func (in *invocation) tokenTable(tokens []*migcontrollerv1.Token) table {
	t := table{columns: []column{
		{title: "TOKEN"},
		{title: "NAME"},
		{title: "ROLE", drop: 4},
		{title: "POOLS", drop: 3},
		{title: "STATE", drop: 5},
		{title: "EXPIRES"},
		{title: "USED", drop: 2},
		{title: "CREATED BY", drop: 1},
		{title: "CREATED", wide: true},
		{title: "REVOKED", wide: true},
		{title: "REVOKED BY", wide: true},
	}}
	for _, token := range tokens {
		t.add(
			plain(token.GetId()), plain(token.GetName()), plain(roleName(token.GetRole())), poolsCell(token.GetPools()), in.tokenState(token),
			in.when(token.GetExpiresAt()), in.when(token.GetLastUsedAt()), plain(token.GetCreatedBy()), in.when(token.GetCreatedAt()),
			in.when(token.GetRevokedAt()), plain(token.GetRevokedBy()),
		)
	}
	return t
}

func (in *invocation) tokenState(t *migcontrollerv1.Token) cell {
	switch {
	case t.GetRevokedAt() != nil:
		return cell{text: "revoked", tone: faint}
	case t.GetExpiresAt() != nil && !in.now().Before(t.GetExpiresAt().AsTime()):
		return cell{text: "expired", tone: faint}
	default:
		return cell{text: "valid", tone: good}
	}
}

type revokeTokenCmd struct {
	ID string `arg:"" name:"token" help:"The token's id, such as tok-4fj2k7qzp1."`
	reasonFlag
}

// Help returns the command's help text.
func (revokeTokenCmd) Help() string {
	return examples(
		"The token is refused within a second, and watches of its holder end within seconds.",
		"migctl token revoke tok-4fj2k7qzp1 --reason 'laptop lost'",
	)
}

// Run revokes a token.
func (cmd revokeTokenCmd) Run(ctx context.Context, in *invocation) error {
	if strings.HasPrefix(cmd.ID, secretPrefix) {
		return &failure{code: exitUsage, text: "<token> must be the token's id, not its secret", hint: "migctl token list shows the ids."}
	}
	if err := in.dial(); err != nil {
		return err
	}
	res, err := callRPC(ctx, in, 0, in.access.RevokeToken, &migcontrollerv1.RevokeTokenRequest{TokenId: cmd.ID, Reason: cmd.Reason})
	if err != nil {
		return lookupError{err, "migctl token list shows the ids of the tokens."}
	}
	return in.writeRecord(res.GetToken(), in.tokenFields(res.GetToken()))
}

func (in *invocation) tokenFields(token *migcontrollerv1.Token) table {
	t := fields()
	t.field("Token", plain(token.GetId()))
	t.field("Name", plain(token.GetName()))
	t.field("Role", plain(roleName(token.GetRole())))
	t.field("Pools", poolsCell(token.GetPools()))
	t.field("State", in.tokenState(token))
	t.field("Created", in.whenBoth(token.GetCreatedAt()))
	t.field("  by", plain(token.GetCreatedBy()))
	t.field("Expires", in.whenBoth(token.GetExpiresAt()))
	t.field("Used", in.whenBoth(token.GetLastUsedAt()))
	t.field("Revoked", in.whenBoth(token.GetRevokedAt()))
	t.field("  by", plain(token.GetRevokedBy()))
	return t
}
