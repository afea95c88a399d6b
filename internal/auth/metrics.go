package auth

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mig-controller/mig-controller/internal/metric"
)

// register registers the metrics of tokens.
func (t *Tokens) register(r prometheus.Registerer) {
	promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metric.Namespace, Name: "operator_tokens", Help: "Tokens of operators that are valid.",
	}, t.valid)
}

func (t *Tokens) valid() (n float64) {
	now := t.clock()
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, i := range t.byID {
		if now.Before(i.token.endedAt()) {
			n++
		}
	}
	return n
}

// metrics are those of an Authenticator.
type metrics struct {
	accepted map[Method]prometheus.Counter
	rejected map[string]prometheus.Counter
}

func newMetrics(r prometheus.Registerer) metrics {
	accepted := promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Namespace: metric.Namespace, Name: "operator_requests_authenticated_total",
		Help: "Requests of operators that were authenticated, by the method.",
	}, []string{"method"})
	rejected := promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Namespace: metric.Namespace, Name: "operator_requests_rejected_total",
		Help: "Requests of operators that were rejected, by the reason.",
	}, []string{"reason"})
	m := metrics{map[Method]prometheus.Counter{}, map[string]prometheus.Counter{}}
	for _, method := range Methods {
		m.accepted[method] = accepted.WithLabelValues(string(method))
	}
	for _, reason := range Reasons {
		m.rejected[reason] = rejected.WithLabelValues(reason)
	}
	return m
}
