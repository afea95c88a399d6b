package sim

import "time"

// task is a step of an agent that is due at some time: a heartbeat, the end of a job, a
// crash. An error ends the stream.
type task func(*stream) error

// agenda contains the future tasks, a handful at most. Only one goroutine uses it.
type agenda []appointment

type appointment struct {
	at time.Time
	do task
}

func (g *agenda) after(wait time.Duration, do task) {
	*g = append(*g, appointment{time.Now().Add(wait), do})
}

// next returns the index of the earliest appointment, or -1.
func (g *agenda) next() int {
	first := -1
	for i, ahead := range *g {
		if first < 0 || ahead.at.Before((*g)[first].at) {
			first = i
		}
	}
	return first
}

// due removes and returns the earliest task that is due, or nil.
func (g *agenda) due(now time.Time) task {
	i := g.next()
	if i < 0 || (*g)[i].at.After(now) {
		return nil
	}
	do := (*g)[i].do
	last := len(*g) - 1
	(*g)[i] = (*g)[last]
	(*g)[last] = appointment{}
	*g = (*g)[:last]
	return do
}

// wait returns the time until the earliest appointment of all agendas, at most limit.
func wait(now time.Time, limit time.Duration, agendas ...*agenda) time.Duration {
	for _, g := range agendas {
		if i := g.next(); i >= 0 {
			limit = min(limit, (*g)[i].at.Sub(now))
		}
	}
	return max(limit, 0)
}
