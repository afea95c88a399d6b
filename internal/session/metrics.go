package session

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/metric"
)

// MessageKind is the kind of a message from an agent, in the log and in the metrics.
type MessageKind string

// The kinds of messages. KindConnect is the ConnectRequest of a stream that has a session
// already; the one that opens a session is counted as such.
const (
	KindAck          MessageKind = "ack"
	KindConnect      MessageKind = "connect"
	KindError        MessageKind = "error"
	KindEvent        MessageKind = "event"
	KindHeartbeat    MessageKind = "heartbeat"
	KindOther        MessageKind = metric.Other
	kindPoll         MessageKind = "poll"
	kindTokenRequest MessageKind = "token_request"
)

// metrics are the metrics of a Registry. They have each child that a closed set allows, so
// that counting looks up nothing but that.
type metrics struct {
	pools        *metric.Pools
	sessions     *prometheus.GaugeVec
	opened       *prometheus.CounterVec
	reopened     prometheus.Counter
	ended        [len(endCauses)]prometheus.Counter
	rejected     map[Rejection]prometheus.Counter
	superseded   superseded
	received     map[MessageKind]prometheus.Counter // on streams
	requested    map[MessageKind]prometheus.Counter // over HTTP
	refused      map[MessageKind]prometheus.Counter
	lateAcks     prometheus.Counter
	throttles    prometheus.Counter
	heartbeats   prometheus.Counter // received[KindHeartbeat], for the most frequent kind
	heartbeatGap prometheus.Histogram
	lost         prometheus.Counter // heartbeats
}

// superseded counts superseded sessions by their age.
type superseded struct{ young, older prometheus.Counter }

func newMetrics(r prometheus.Registerer, pools *metric.Pools) metrics {
	with := promauto.With(r)
	m := metrics{
		pools: pools,
		sessions: with.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: metric.Namespace, Name: "sessions",
			Help: "VMs that are connected now: sessions that no newer one of their VM has superseded, by the pool that the agent named.",
		}, []string{"pool"}),
		opened: counters(with, "sessions_opened_total",
			"Sessions that were opened: one for each new VM, and those in migcontroller_sessions_reopened_total.", "pool"),
		reopened: counter(with, "sessions_reopened_total",
			"Sessions of VMs that had a session before: their agents reconnected or were started again. See the reasons in migcontroller_sessions_ended_total."),
		lateAcks: counter(with, "late_acks_total",
			"Acks that arrived after their command had ended, mostly because it timed out. If this grows, the ack timeout is too short for what the commands do."),
		throttles: counter(with, "throttles_total",
			"How many times a VM began to report more than it may, so that its stream was not read for a while or its requests were refused. The log names the VMs."),
		heartbeatGap: with.NewHistogram(metric.Histogram("heartbeat_gap_seconds",
			"Time between two heartbeats on one session. Agents send one every 15 seconds and when their state changes; longer gaps are agents or links that stall.",
			metric.Durations)),
		lost: counter(with, "heartbeats_lost_total",
			"Heartbeats that were received and could not be stored. The log has the reason."),
	}
	for _, pool := range []string{"", metric.Other} {
		m.sessions.WithLabelValues(pool)
		m.opened.WithLabelValues(pool)
	}
	m.newEnds(with)
	m.newMessages(with)
	return m
}

func (m *metrics) newEnds(with promauto.Factory) {
	ended := counters(with, "sessions_ended_total", "Sessions that ended, by the reason. The reasons are those in the log: see docs/operations.md.", "reason")
	for cause := range endCauses {
		m.ended[cause] = ended.WithLabelValues(endCauses[cause].label)
	}
	m.rejected = children(counters(with, "sessions_rejected_total",
		"Streams that ended before they had a session, by the reason: an invalid ConnectRequest, none within 30 seconds, or a controller that was stopping or could not store the session.",
		"reason"), RejectInvalid, RejectTimeout, RejectClosed, RejectProtocol, RejectStopping, rejectUnavailable, rejectOther)
	old := counters(with, "sessions_superseded_total",
		"Sessions that a newer one of the same VM superseded, by their age. An agent that reconnects supersedes an old one; if under_30s keeps growing, two agents use the same VM id.",
		"age")
	m.superseded = superseded{young: old.WithLabelValues("under_30s"), older: old.WithLabelValues("older")}
}

func (m *metrics) newMessages(with promauto.Factory) {
	messages := counters(with, "messages_total", "Messages from agents: those on streams, including refused ones, and well-formed requests over HTTP.", "kind", "via")
	m.received = children(messages.MustCurryWith(prometheus.Labels{"via": "stream"}),
		KindAck, KindConnect, KindError, KindEvent, KindHeartbeat, KindOther)
	m.heartbeats = m.received[KindHeartbeat]
	m.requested = children(messages.MustCurryWith(prometheus.Labels{"via": "http"}), KindEvent, KindHeartbeat, kindPoll, kindTokenRequest)
	m.refused = children(counters(with, "messages_refused_total",
		"Messages on streams that were refused because they violate a rule, which the log names. Requests over HTTP that were refused are in migcontroller_requests_total.",
		"kind"), KindAck, KindConnect, KindError, KindEvent, KindHeartbeat, KindOther)
}

// watch adds what is read when the metrics are.
func (m *metrics) watch(r prometheus.Registerer, heartbeats, held, connects func() float64) {
	gauge := func(name, help string, value func() float64) {
		promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{Namespace: metric.Namespace, Name: name, Help: help}, value)
	}
	gauge("heartbeats_waiting",
		"Heartbeats that were received and are not stored yet. Up to some hundred are normal; if it stays in the thousands, the database is too slow or unavailable.",
		heartbeats)
	gauge("connects_waiting",
		"Streams that wait for their turn to open a session. After a start or an outage of the network all agents connect at once, and it falls to 0 within seconds; if it does not, the database is too slow.",
		connects)
	gauge("streams_held",
		"Streams that were refused or superseded and are held for some seconds before they end, so that their agents do not reconnect at once.", held)
}

func counter(with promauto.Factory, name, help string) prometheus.Counter {
	return with.NewCounter(prometheus.CounterOpts{Namespace: metric.Namespace, Name: name, Help: help})
}

func counters(with promauto.Factory, name, help string, labels ...string) *prometheus.CounterVec {
	return with.NewCounterVec(prometheus.CounterOpts{Namespace: metric.Namespace, Name: name, Help: help}, labels)
}

// children returns the counters for the values of the only label.
func children[L ~string](of *prometheus.CounterVec, values ...L) map[L]prometheus.Counter {
	all := make(map[L]prometheus.Counter, len(values))
	for _, v := range values {
		all[v] = of.WithLabelValues(string(v))
	}
	return all
}

// sessionOpened counts a session. The gauge counts the sessions of its pool.
func (m *metrics) sessionOpened(pool string, epoch fleet.Epoch) (live prometheus.Gauge) {
	pool = m.pools.Value(pool)
	m.opened.WithLabelValues(pool).Inc()
	if epoch > 1 {
		m.reopened.Inc()
	}
	return m.sessions.WithLabelValues(pool)
}

// total returns the sum of counters.
func total(counters ...prometheus.Counter) (n int64) {
	for _, c := range counters {
		var m dto.Metric
		if c.Write(&m) == nil {
			n += int64(m.GetCounter().GetValue())
		}
	}
	return n
}
