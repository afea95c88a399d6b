package rpc

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/audit"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/requestid"
	"github.com/mig-controller/mig-controller/internal/store"
)

// auditTimeout limits how long the event of a call is waited for after the call.
const auditTimeout = 10 * time.Second

// auditInterceptor records each call of operators that requests a change: its event is durable
// before its response is sent. Whatever makes the change may have recorded the event with it. A
// call that repeats an earlier one, as clients do to wait for a command, is not recorded again.
type auditInterceptor struct {
	events  audit.Recorder
	log     *slog.Logger
	limiter *loglimit.Limiter
	clock   func() time.Time
}

// NewAuditInterceptor returns the interceptor of all services that records the calls of
// operators' methods with side effects, with the principal of their context. It must be inside
// the one of NewErrorInterceptor.
func NewAuditInterceptor(events audit.Recorder, log *slog.Logger, clock func() time.Time) connect.Interceptor {
	return &auditInterceptor{events: events, log: log, limiter: new(loglimit.Limiter), clock: clock}
}

// WrapUnary implements connect.Interceptor.
func (i *auditInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		method, _ := req.Spec().Schema.(protoreflect.MethodDescriptor)
		if !isAudited(method) {
			return next(ctx, req)
		}
		event := i.eventOf(ctx, req, method)
		call := audit.NewPending(event, func(e audit.Event) { i.announce(ctx, e) })
		return i.run(audit.With(ctx, call), call, req, next)
	}
}

// run makes the call and records its event, even if it panics.
func (i *auditInterceptor) run(
	ctx context.Context, call *audit.Pending, req connect.AnyRequest, next connect.UnaryFunc,
) (resp connect.AnyResponse, err error) {
	err = connect.NewError(connect.CodeInternal, errInternal) // until it has returned
	defer func() {
		if failed := i.end(ctx, call, err); failed != nil && err == nil {
			resp, err = nil, failed
		}
	}()
	if bad := checkReason(req.Any()); bad != nil {
		err = bad
		return nil, err
	}
	resp, err = next(ctx, req)
	return resp, err
}

// end records the event of a call that has ended. The caller of a call that has succeeded gets
// the error: without the event the change must not look complete.
func (i *auditInterceptor) end(ctx context.Context, call *audit.Pending, err error) error {
	if call.Recorded() {
		call.Announce()
		return nil
	}
	if err == nil && call.Repeated() {
		return nil
	}
	event := call.Event()
	event.Outcome = audit.OK
	if err != nil {
		failure := toConnect(err)
		event.Outcome, event.Error = failure.Code().String(), audit.Shorten(failure.Message())
	}
	storing, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	if failed := i.events.RecordAudit(storing, event); failed != nil {
		i.log.ErrorContext(ctx, "audit event not stored", callProcedureKey, event.Action, logkey.Error, failed)
		i.announce(ctx, event)
		return failed
	}
	call.MarkRecorded(event)
	call.Announce()
	return nil
}

// announce logs an event. A failed request changes nothing, and its caller can repeat it without
// end, so its lines are limited.
func (i *auditInterceptor) announce(ctx context.Context, e audit.Event) {
	log := i.log
	if e.Outcome != audit.OK {
		log = i.limiter.Limited(log, "audit", e.By.Name, time.Now())
	}
	audit.Log(ctx, log, "audit", e)
}

// WrapStreamingHandler implements connect.Interceptor. Streams change nothing.
func (*auditInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// WrapStreamingClient implements connect.Interceptor. It returns next unchanged.
func (*auditInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// isAudited reports whether the calls of a method are recorded: those for operators that have
// side effects.
func isAudited(method protoreflect.MethodDescriptor) bool {
	if method == nil || method.IsStreamingClient() || method.IsStreamingServer() {
		return false
	}
	switch method.Parent().FullName() {
	case migcontrollerv1connect.AdminServiceName, migcontrollerv1connect.AccessServiceName:
	default:
		return false
	}
	options, _ := method.Options().(*descriptorpb.MethodOptions)
	return options.GetIdempotencyLevel() != descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// actionOf returns the name of a method in audit events.
func actionOf(method protoreflect.MethodDescriptor) string {
	return string(method.Parent().Name()) + "/" + string(method.Name())
}

// eventOf returns what is known of the event of a call before it is made.
func (i *auditInterceptor) eventOf(ctx context.Context, req connect.AnyRequest, method protoreflect.MethodDescriptor) audit.Event {
	e := audit.Event{
		At: i.clock(), By: auth.From(ctx), Action: actionOf(method), RequestID: requestid.Of(ctx), Count: 1,
	}
	if e.By.Method != auth.Socket {
		e.Address = hostOf(req.Peer().Addr)
	}
	message, ok := req.Any().(proto.Message)
	if !ok {
		return e
	}
	m := message.ProtoReflect()
	e.Reason = audit.Shorten(textOf(m, "reason"))
	e.VM, e.Command, e.Detail = idOf(m, "vm_id"), idOf(m, "command_id"), idOf(m, "token_id")
	if field := m.Descriptor().Fields().ByName("command"); field != nil && field.Message() != nil && !field.IsList() && !field.IsMap() {
		command := m.Get(field).Message()
		e.Command, e.Detail = idOf(command, "id"), idOf(command, "type")
	}
	return e
}

// hostOf returns the host of an address with a port.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	host, _, _ = strings.Cut(host, "%") // without a zone
	return host
}

// textOf returns a text field of a message; empty if there is no such field.
func textOf(m protoreflect.Message, name protoreflect.Name) string {
	field := m.Descriptor().Fields().ByName(name)
	if field == nil || field.Kind() != protoreflect.StringKind || field.IsList() {
		return ""
	}
	return m.Get(field).String()
}

// idOf returns an id in a message; empty for a text that is not one, which the error names, and
// for the secret of a token.
func idOf(m protoreflect.Message, name protoreflect.Name) string {
	id := textOf(m, name)
	if fleet.CheckOptionalID(string(name), id) != nil || strings.HasPrefix(id, auth.SecretPrefix) {
		return ""
	}
	return id
}

// checkReason returns a *fleet.FieldError for a reason that is too long.
func checkReason(message any) error {
	m, ok := message.(proto.Message)
	if ok && utf8.RuneCountInString(textOf(m.ProtoReflect(), "reason")) > audit.MaxText {
		return fleet.Invalid("reason", "must have at most %d characters", audit.MaxText)
	}
	return nil
}

// ListAuditEvents implements AccessService.
func (s *accessService) ListAuditEvents(
	ctx context.Context, req *migcontrollerv1.ListAuditEventsRequest,
) (*migcontrollerv1.ListAuditEventsResponse, error) {
	since, until, err := periodFromProto(req)
	if err != nil {
		return nil, err
	}
	q := store.AuditQuery{
		Principal: req.GetPrincipal(), Action: req.GetAction(), VM: req.GetVmId(), Command: req.GetCommandId(), Outcome: req.GetOutcome(),
		Since: since, Until: until,
	}
	page, next, err := s.control.AuditEvents(ctx, q, int(req.GetPageSize()), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.ListAuditEventsResponse{Events: allToProto(page, auditToProto), NextPageToken: next}, nil
}

func auditToProto(e audit.Event) *migcontrollerv1.AuditEvent {
	return &migcontrollerv1.AuditEvent{
		At: timeToProto(e.At), Principal: principalToProto(e.By),
		Address: e.Address, Action: e.Action, VmId: e.VM, CommandId: e.Command, Detail: e.Detail, Outcome: e.Outcome,
		Error: e.Error, Reason: e.Reason, RequestId: e.RequestID, Count: e.Count,
	}
}
