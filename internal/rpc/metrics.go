package rpc

import (
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/protobuf/reflect/protoreflect"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/metric"
)

// numCodes is the number of codes, with 0 for a call that succeeded.
const numCodes = int(connect.CodeUnauthenticated) + 1

// Requests are the metrics of the calls of this project's services. Those of other services,
// such as reflection, are not counted. A nil *Requests counts nothing.
type Requests struct{ of map[string]*procedureMetrics }

// procedureMetrics are the metrics of the calls of one procedure.
type procedureMetrics struct {
	ended   [numCodes]prometheus.Counter
	seconds prometheus.Observer // nil for a stream
}

// NewRequests registers the metrics of calls with r; nil registers none.
func NewRequests(r prometheus.Registerer) *Requests {
	ended := promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Namespace: metric.Namespace, Name: "requests_total",
		Help: "Calls that ended, by their code, which is ok for success. Requests of the agents' HTTP routes count as calls of AgentService, and a stream counts when it ends. Calls whose message cannot be decoded are counted only on these routes.",
	}, []string{"procedure", "code"})
	seconds := promauto.With(r).NewHistogramVec(metric.Histogram("request_seconds",
		"Duration of calls other than streams. Calls that wait for the result of a command, as their caller requested, take that long.",
		metric.Latencies), []string{"procedure"})
	all := &Requests{of: map[string]*procedureMetrics{}}
	for _, file := range []protoreflect.FileDescriptor{
		migcontrollerv1.File_migcontroller_v1_admin_service_proto, migcontrollerv1.File_migcontroller_v1_access_service_proto,
		migcontrollerv1.File_migcontroller_v1_agent_service_proto,
		commands.File_miglet_commands_commands_proto,
	} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for k := range methods.Len() {
				all.add(methods.Get(k), ended, seconds)
			}
		}
	}
	return all
}

// add adds a procedure.
func (r *Requests) add(method protoreflect.MethodDescriptor, ended *prometheus.CounterVec, seconds *prometheus.HistogramVec) {
	procedure := "/" + string(method.Parent().FullName()) + "/" + string(method.Name())
	p := &procedureMetrics{}
	for code := range p.ended {
		p.ended[code] = ended.WithLabelValues(procedure, codeName(connect.Code(code)))
	}
	if !method.IsStreamingClient() && !method.IsStreamingServer() {
		p.seconds = seconds.WithLabelValues(procedure)
	}
	r.of[procedure] = p
}

// codeName returns the name of a code, and ok for 0.
func codeName(c connect.Code) string {
	if c == 0 {
		return "ok"
	}
	return c.String()
}

// returned counts a call that began at this time and returned err.
func (r *Requests) returned(procedure string, began time.Time, err error) {
	var code connect.Code
	if err != nil {
		code = connect.CodeOf(err)
	}
	if p := r.refused(procedure, code); p != nil && p.seconds != nil {
		p.seconds.Observe(time.Since(began).Seconds())
	}
}

// refused counts a call that ended with a code before it reached its handler. It returns nil
// if the calls of the procedure are not counted.
func (r *Requests) refused(procedure string, code connect.Code) *procedureMetrics {
	if r == nil || r.of[procedure] == nil {
		return nil
	}
	p := r.of[procedure]
	p.ended[code].Inc()
	return p
}
