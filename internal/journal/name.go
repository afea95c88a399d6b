package journal

import (
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// stampLayout has a fixed width, so that timestamps sort by time.
const stampLayout = "20060102T150405.000000000Z"

const (
	streamPrefix  = "grpc-"
	eventPrefix   = "event-"
	heartbeatKind = "heartbeat"
	fileSuffix    = ".json"
	tempPrefix    = "." // no vm_id and no other file of ours begins with it
	tempSuffix    = ".tmp"
	checkName     = "_check"
)

func eventName(e fleet.Event) string { return fileName(e.Origin, eventPrefix+e.Type) }

func heartbeatName(o fleet.Origin) string { return fileName(o, heartbeatKind) }

// fileName returns at most 171 bytes: ids have at most 128.
func fileName(o fleet.Origin, kind string) string {
	prefix := ""
	if o.Via == fleet.Stream {
		prefix = streamPrefix
	}
	return prefix + kind + "-" + o.ReceivedAt.UTC().Format(stampLayout) + fileSuffix
}

// parseName returns the time in a name that fileName could have made.
func parseName(name string) (at time.Time, ok bool) {
	name, ok = strings.CutSuffix(name, fileSuffix)
	cut := len(name) - len(stampLayout)
	if !ok || cut < 1 || name[cut-1] != '-' {
		return time.Time{}, false
	}
	kind, stamp := strings.TrimPrefix(name[:cut-1], streamPrefix), name[cut:]
	if kind != heartbeatKind {
		typ, isEvent := strings.CutPrefix(kind, eventPrefix)
		if !isEvent || fleet.CheckID("type", typ) != nil {
			return time.Time{}, false
		}
	}
	at, err := time.Parse(stampLayout, stamp)
	if err != nil || at.Format(stampLayout) != stamp {
		return time.Time{}, false
	}
	return at, true
}

// tempName is the name under which the file is written before it gets its final name.
func tempName(name string, number string) string {
	return tempPrefix + name + "." + number + tempSuffix
}

// isTemp reports whether tempName could have made the name.
func isTemp(name string) bool {
	name, hidden := strings.CutPrefix(name, tempPrefix)
	name, temp := strings.CutSuffix(name, tempSuffix)
	dot := strings.LastIndexByte(name, '.')
	if !hidden || !temp || dot < 0 || dot == len(name)-1 || strings.Trim(name[dot+1:], "0123456789") != "" {
		return false
	}
	_, ok := parseName(name[:dot])
	return ok
}
