package metric

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The first pools keep their names, however often the others come.
func TestPoolsAreBounded(t *testing.T) {
	t.Parallel()
	p := NewPools(2)
	require.Empty(t, p.Value(""))
	require.Equal(t, "a", p.Value("a"))
	require.Equal(t, "b?", p.Value("b\xff"))
	var all sync.WaitGroup
	for n := range 100 {
		all.Go(func() { p.Value(strconv.Itoa(n)) })
	}
	all.Wait()
	require.Equal(t, Other, p.Value("c"))
	require.Equal(t, "a", p.Value("a"))
	require.Len(t, p.named, 2)
	require.Equal(t, Other, NewPools(0).Value("a"))
}

// A value outside of the closed set is Other.
func TestOneOf(t *testing.T) {
	t.Parallel()
	require.Equal(t, "drain", OneOf("drain", []string{"drain"}))
	require.Equal(t, Other, OneOf("vm-7", []string{"drain"}))
}

func scrape(t *testing.T, page http.Handler) *httptest.ResponseRecorder {
	t.Helper()
	answer := httptest.NewRecorder()
	page.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	return answer
}

// The page has the metrics of the runtime, the process and those that packages register, and
// histograms have classic buckets.
func TestPage(t *testing.T) {
	t.Parallel()
	r := NewRegistry()
	promauto.With(r).NewHistogram(Histogram("example_seconds", "An example.", Latencies)).Observe(.002)
	answer := scrape(t, Page(r, slog.New(slog.DiscardHandler)))
	require.Equal(t, http.StatusOK, answer.Code)
	for _, want := range []string{
		"\ngo_goroutines ", "\nprocess_start_time_seconds ", "# HELP migcontroller_example_seconds An example.\n",
		"\nmigcontroller_example_seconds_bucket{le=\"0.0025\"} 1\n", "\nmigcontroller_example_seconds_count 1\n",
	} {
		require.Contains(t, answer.Body.String(), want)
	}
}

type broken struct{ desc *prometheus.Desc }

func (b broken) Describe(c chan<- *prometheus.Desc) { c <- b.desc }

func (b broken) Collect(c chan<- prometheus.Metric) {
	c <- prometheus.NewInvalidMetric(b.desc, errors.New("no figure"))
}

// A metric that cannot be collected is logged and does not hide the others.
func TestBrokenMetric(t *testing.T) {
	t.Parallel()
	r := NewRegistry()
	r.MustRegister(broken{prometheus.NewDesc("broken", "A broken metric.", nil, nil)})
	var log bytes.Buffer
	answer := scrape(t, Page(r, slog.New(slog.NewTextHandler(&log, nil))))
	require.Equal(t, http.StatusOK, answer.Code)
	require.Contains(t, answer.Body.String(), "\ngo_goroutines ")
	require.Contains(t, log.String(), "no figure")
}
