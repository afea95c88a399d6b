package report

import (
	"maps"
	"slices"

	"github.com/mig-controller/mig-controller/bench/internal/result"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// titles are the labels of the servers, in display order.
var titles = []struct{ server, title string }{
	{string(target.Bare), "bare grpc-go"},
	{string(target.Controller), "controller"},
	{string(target.TLS), "controller with TLS"},
}

func names(s result.Sample) []string { return slices.Sorted(maps.Keys(s.Values)) }
