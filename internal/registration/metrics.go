package registration

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mig-controller/mig-controller/internal/metric"
)

// metrics are the metrics of a Registrar.
type metrics struct{ tokens, noTokens prometheus.Counter }

func newMetrics(r prometheus.Registerer) metrics {
	reads := promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Namespace: metric.Namespace, Name: "token_reads_total",
		Help: "Registration tokens that were requested from the token source, by whether one was available.",
	}, []string{"result"})
	return metrics{tokens: reads.WithLabelValues("ok"), noTokens: reads.WithLabelValues("unavailable")}
}

// register registers the metrics of a FileWatch.
func (w *FileWatch) register(r prometheus.Registerer) {
	promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metric.Namespace, Name: "token_file_valid",
		Help: "Whether the token file contained a well-formed registration token when it was last checked, which happens every 15 seconds.",
	}, func() float64 {
		if w.written.Load() == nil {
			return 0
		}
		return 1
	})
	promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metric.Namespace, Name: "token_file_age_seconds",
		Help: "Time since the token file was written; 0 while it contains no token. GitHub's tokens are valid for an hour.",
	}, func() float64 {
		written := w.written.Load()
		if written == nil {
			return 0
		}
		return max(0, w.clock().Sub(*written).Seconds())
	})
}

// setWritten records when the file was written that was valid at the last check; the zero time
// means that it was not valid.
func (w *FileWatch) setWritten(written time.Time) {
	if written.IsZero() {
		w.written.Store(nil)
		return
	}
	w.written.Store(&written)
}
