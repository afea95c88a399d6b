package sqlite

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mig-controller/mig-controller/internal/diskspace"
	"github.com/mig-controller/mig-controller/internal/metric"
)

// register registers the metrics, which need no connection.
func (db *DB) register(r prometheus.Registerer) {
	gauge := func(name, help string, read func() float64) {
		promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{Namespace: metric.Namespace, Name: name, Help: help}, read)
	}
	gauge("database_bytes", "Size of the database file. It does not shrink when rows are deleted: their space is used again.",
		func() float64 { return float64(size(db.path)) })
	gauge("database_wal_bytes", "Size of the write-ahead log. It grows beyond 32 MiB only while a read needs its content: see database_oldest_read_seconds. If that is low, another program has the database open.",
		func() float64 { return float64(size(logOf(db.path))) })
	gauge("database_free_space_bytes", "Free space of the file system of the database; NaN if it is not known. Without space nothing can be stored.",
		func() float64 {
			space, err := diskspace.Measure(db.path)
			if err != nil {
				return math.NaN()
			}
			return float64(space.Free)
		})
	gauge("database_oldest_read_seconds", "Time since the beginning of the oldest read in progress in the controller; 0 for none. Reads usually take milliseconds.",
		func() float64 { return db.oldestRead().Seconds() })
}

// oldestRead returns for how long the oldest read has been in progress; zero for none.
func (db *DB) oldestRead() (age time.Duration) {
	now := time.Since(db.opened)
	for _, c := range db.conns.reading {
		if began := c.began.Load(); began > 0 {
			age = max(age, now-time.Duration(began))
		}
	}
	return age
}
