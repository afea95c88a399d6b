package app

import (
	"log/slog"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/httpserver"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/rpc"
)

// registerProcess registers the metrics of the process itself. dropped returns how many lines
// for stdout and stderr were dropped.
func registerProcess(r prometheus.Registerer, dropped func() float64) {
	promauto.With(r).NewGaugeVec(prometheus.GaugeOpts{
		Namespace: metric.Namespace, Name: "build_info", Help: "The build of this controller; always 1.",
	}, []string{"version", "revision", "goversion"}).WithLabelValues(Version(), buildCommit(), runtime.Version()).Set(1)
	promauto.With(r).NewCounterFunc(prometheus.CounterOpts{
		Namespace: metric.Namespace, Name: "log_lines_dropped_total",
		Help: "Lines for stdout and stderr that were dropped because they could not be written in time.",
	}, dropped)
}

// newMetricsServer returns the server of --metrics-addr, like that of the API. Its own connections
// are not counted.
func newMetricsServer(o config.Options, like httpserver.Options, r *prometheus.Registry, log *slog.Logger) *httpserver.Server {
	like.Handler = restrictBrowsers(rpc.WithTimeouts(rpc.NewMetricsHandler(metric.Page(r, log)), rpc.CallTimeout), o, log)
	like.Metrics = nil
	return httpserver.New(like)
}

// restrictBrowsers applies the rules of the options to the requests of web pages.
func restrictBrowsers(next http.Handler, o config.Options, log *slog.Logger) http.Handler {
	return httpserver.RestrictBrowsers(next, httpserver.BrowserRules{
		Origins: o.AllowOrigins, Hosts: o.OwnHosts(), Refuse: rpc.WriteForbidden, Log: log,
	})
}
