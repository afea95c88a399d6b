package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

const (
	rolePrefix   = "ROLE_"
	methodPrefix = "AUTH_METHOD_"
)

type whoAmICmd struct{}

// Help returns the command's help text.
func (whoAmICmd) Help() string {
	return examples("Shows the name, the role and the pools that your credentials stand for.", "migctl whoami")
}

// Run shows the principal of the caller.
func (whoAmICmd) Run(ctx context.Context, in *invocation) error {
	if err := in.dial(); err != nil {
		return err
	}
	res, err := callRPC(ctx, in, 0, in.access.WhoAmI, &migcontrollerv1.WhoAmIRequest{})
	if err != nil {
		return err
	}
	p := res.GetPrincipal()
	t := fields()
	t.field("Name", plain(p.GetName()))
	t.field("Method", plain(methodName(p.GetMethod())))
	t.field("Role", plain(roleName(p.GetRole())))
	t.field("Pools", poolsCell(p.GetPools()))
	if p.GetTokenId() != "" {
		t.field("Token", plain(p.GetTokenId()))
	}
	t.field("Expires", in.whenBoth(p.GetExpiresAt()))
	return in.writeRecord(p, t)
}

func roleName(r migcontrollerv1.Role) string {
	if r == migcontrollerv1.Role_ROLE_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(r.String(), rolePrefix))
}

func methodName(m migcontrollerv1.AuthMethod) string {
	if m == migcontrollerv1.AuthMethod_AUTH_METHOD_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(m.String(), methodPrefix))
}

// poolsCell shows the pools that a principal is limited to.
func poolsCell(pools []string) cell {
	if len(pools) == 0 {
		return plain("all")
	}
	return plain(strings.Join(pools, ","))
}

type auditCmd struct {
	VM        string  `name:"vm" placeholder:"VM" help:"Only changes that concern this VM."`
	Command   string  `placeholder:"ID" help:"Only changes that concern this command."`
	Principal string  `placeholder:"NAME" help:"Only changes that were requested under this name."`
	Action    string  `placeholder:"ACTION" help:"Only changes of this kind, such as SendCommand or AccessService/CreateToken."`
	Outcome   string  `placeholder:"OUTCOME" help:"Only changes with this outcome: ok, or the code of an error, such as permission_denied."`
	Since     timeArg `placeholder:"WHEN" help:"Only changes requested since WHEN: 1h (an hour ago), or a time such as 2006-01-02T15:04:05Z."`
	Until     timeArg `placeholder:"WHEN" help:"Only changes requested before WHEN, written the same way."`
	Limit     int     `default:"50" placeholder:"N" help:"Show at most the N latest (${default}); 0 means all."`
}

// Help returns the command's help text.
func (auditCmd) Help() string {
	return examples(
		"Rejected requests are counted by address, reason and minute.",
		"migctl audit --vm vm-1",
		"migctl audit --since 1d --action SendCommand --principal ann",
		"migctl audit --outcome permission_denied -o wide",
	)
}

// Run lists audit events.
func (cmd auditCmd) Run(ctx context.Context, in *invocation) error {
	if err := checkLimit(cmd.Limit); err != nil {
		return err
	}
	req := &migcontrollerv1.ListAuditEventsRequest{
		Principal: cmd.Principal, Action: wholeAction(cmd.Action), VmId: cmd.VM, CommandId: cmd.Command, Outcome: cmd.Outcome,
	}
	var err error
	if req.Since, req.Until, err = in.period(cmd.Since, cmd.Until); err != nil {
		return err
	}
	if err := in.dial(); err != nil {
		return err
	}
	events, more, err := listPages(cmd.Limit, func(size int32, token string) ([]*migcontrollerv1.AuditEvent, string, error) {
		req.PageSize, req.PageToken = size, token
		res, err := callRPC(ctx, in, 0, in.access.ListAuditEvents, req)
		return res.GetEvents(), res.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	if err := writeList(in, events, in.auditTable(events), "No audit event matches."); err != nil {
		return err
	}
	in.noteMore(more)
	return nil
}

// period returns the times of --since and --until; nil for those that are not given.
func (in *invocation) period(since, until timeArg) (from, to *timestamppb.Timestamp, err error) {
	begin, err := since.at("since", in.now())
	if err != nil {
		return nil, nil, err
	}
	end, err := until.at("until", in.now())
	if err != nil {
		return nil, nil, err
	}
	if !begin.IsZero() {
		from = timestamppb.New(begin)
	}
	if !end.IsZero() {
		to = timestamppb.New(end)
	}
	return from, to, nil
}

func (in *invocation) auditTable(events []*migcontrollerv1.AuditEvent) table {
	t := table{columns: []column{
		{title: "AT"},
		{title: "PRINCIPAL"},
		{title: "METHOD", wide: true},
		{title: "ADDRESS", wide: true},
		{title: "ACTION"},
		{title: "VM", drop: 5},
		{title: "COMMAND", drop: 3},
		{title: "DETAIL", drop: 2},
		{title: "OUTCOME"},
		{title: "COUNT", drop: 1},
		{title: "REQUEST", wide: true},
		{title: "REASON", drop: 4, text: true},
	}}
	for _, e := range events {
		t.add(
			in.when(e.GetAt()), plain(e.GetPrincipal().GetName()), plain(methodName(e.GetPrincipal().GetMethod())), plain(e.GetAddress()),
			plain(shortAction(e.GetAction())), plain(e.GetVmId()), plain(e.GetCommandId()), plain(e.GetDetail()), outcomeCell(e.GetOutcome()),
			plain(strconv.FormatInt(e.GetCount(), 10)), plain(e.GetRequestId()), plain(auditReason(e)),
		)
	}
	return t
}

func outcomeCell(outcome string) cell {
	if outcome == "ok" {
		return cell{text: outcome, tone: good}
	}
	return cell{text: outcome, tone: bad}
}

// auditReason shows why a change was requested, and why it was not made.
func auditReason(e *migcontrollerv1.AuditEvent) string {
	if e.GetReason() != "" && e.GetError() != "" {
		return fmt.Sprintf("%s (%s)", e.GetReason(), e.GetError())
	}
	return e.GetReason() + e.GetError()
}

// actions returns the methods that change something, such as AdminService/SendCommand.
func actions() (all []string) {
	for _, file := range []protoreflect.FileDescriptor{
		migcontrollerv1.File_migcontroller_v1_admin_service_proto, migcontrollerv1.File_migcontroller_v1_access_service_proto,
	} {
		service := file.Services().Get(0)
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			options, ok := method.Options().(*descriptorpb.MethodOptions)
			if ok && options.GetIdempotencyLevel() != descriptorpb.MethodOptions_NO_SIDE_EFFECTS && !method.IsStreamingServer() {
				all = append(all, string(service.Name())+"/"+string(method.Name()))
			}
		}
	}
	return all
}

// shortAction returns the name of the method.
func shortAction(action string) string { return action[strings.LastIndex(action, "/")+1:] }

// wholeAction completes the name of a method with that of its service.
func wholeAction(name string) string {
	i := slices.IndexFunc(actions(), func(action string) bool { return strings.EqualFold(shortAction(action), name) })
	if i < 0 {
		return name
	}
	return actions()[i]
}
