package oidc

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mig-controller/mig-controller/internal/metric"
)

// metrics are the metrics of the package.
type metrics struct{ ok, failed, limited prometheus.Counter }

func newMetrics(r prometheus.Registerer) metrics {
	fetches := promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Namespace: metric.Namespace, Name: "oidc_fetches_total",
		Help: "Requests to issuers in operators.oidc for their configuration and keys, by outcome: ok, failed, or limited if they were not sent because the keys had been fetched less than 30 seconds before.",
	}, []string{"outcome"})
	return metrics{
		ok: fetches.WithLabelValues("ok"), failed: fetches.WithLabelValues("failed"), limited: fetches.WithLabelValues("limited"),
	}
}

// count counts a request that was sent.
func (m metrics) count(ok bool) {
	if ok {
		m.ok.Inc()
	} else {
		m.failed.Inc()
	}
}
