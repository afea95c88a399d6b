package httpserver

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mig-controller/mig-controller/internal/metric"
)

// The reasons for which a connection is closed before it is served, or no longer served.
const (
	refusedCrowded   = "crowded"   // few open files are left, and its source has many connections
	refusedHandshake = "handshake" // its TLS handshake failed
	refusedPlaintext = "plaintext" // it speaks plaintext HTTP, and the server TLS
	refusedResets    = "resets"    // its peer resets too many streams
	refusedSilent    = "silent"    // it sent nothing, or not in time
	refusedStopping  = "stopping"
)

// metrics are the metrics of a Server.
type metrics struct {
	accepted prometheus.Counter
	refused  map[string]prometheus.Counter
}

// newMetrics registers the metrics. open returns how many connections are open, and opening how
// many of them are not served yet.
func newMetrics(r prometheus.Registerer, open, opening func() float64) metrics {
	promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metric.Namespace, Name: "connections",
		Help: "Connections to the addresses of the API that are open now. Each is an open file: compare it with process_max_fds.",
	}, open)
	promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metric.Namespace, Name: "connections_opening",
		Help: "Connections to the addresses of the API that wait for their turn, are in their handshake, or have not sent anything yet.",
	}, opening)
	m := metrics{
		accepted: promauto.With(r).NewCounter(prometheus.CounterOpts{
			Namespace: metric.Namespace, Name: "connections_accepted_total",
			Help: "Connections to the addresses of the API that were accepted, including those that were then refused.",
		}),
		refused: map[string]prometheus.Counter{},
	}
	refused := promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Namespace: metric.Namespace, Name: "connections_refused_total",
		Help: "Connections that the controller closed, by the reason: few open files are left and the source has many connections (crowded), the TLS handshake failed, plaintext on an address with TLS, too many streams were reset (resets), nothing was sent, as by a port scan (silent), or a stop.",
	}, []string{"reason"})
	for _, reason := range []string{
		refusedCrowded, refusedHandshake, refusedPlaintext, refusedResets, refusedSilent, refusedStopping,
	} {
		m.refused[reason] = refused.WithLabelValues(reason)
	}
	return m
}

// register registers the metric of the certificate.
func (c *Certificate) register(r prometheus.Registerer) {
	promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metric.Namespace, Name: "certificate_expiry_timestamp_seconds",
		Help: "When the certificate that is served expires, in Unix time. If it is near although the files are newer, these cannot be used: the log has the reason.",
	}, func() float64 { return float64(c.ValidUntil().Unix()) })
}
