package rpc

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/audit"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// maxLogLevelDuration is the longest duration of SetLogLevel.
const maxLogLevelDuration = 7 * 24 * time.Hour

// LogLevel is the level of the log.
type LogLevel struct {
	Level, Configured slog.Level
	// RevertsAt is when Configured returns; zero if that is not planned.
	RevertsAt time.Time
}

// LogControl changes the level of the log. It is safe for concurrent use.
type LogControl interface {
	// LogLevel returns the current level.
	LogLevel() LogLevel
	// SetLogLevel changes the level, until the next call or for d; 0 means without a limit. It
	// logs the change, and returns the level before and after it.
	SetLogLevel(ctx context.Context, level slog.Level, d time.Duration) (before, after LogLevel)
}

// SetLogLevel implements AdminService.
func (s *adminService) SetLogLevel(
	ctx context.Context, req *migcontrollerv1.SetLogLevelRequest,
) (*migcontrollerv1.SetLogLevelResponse, error) {
	level, known := logLevels[req.GetLevel()]
	if !known {
		return nil, fleet.Invalid("level", "must be LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN or LOG_LEVEL_ERROR")
	}
	audit.From(ctx).Concerns("", "", strings.ToLower(level.String()))
	d, err := durationFromProto("duration", req.GetDuration())
	if err != nil {
		return nil, err
	}
	if err := fleet.CheckDuration("duration", d, maxLogLevelDuration); err != nil {
		return nil, err
	}
	before, after := s.server.Log.SetLogLevel(ctx, level, d)
	return &migcontrollerv1.SetLogLevelResponse{
		Level: logLevelToProto(after.Level), PreviousLevel: logLevelToProto(before.Level),
		ConfiguredLevel: logLevelToProto(after.Configured), RevertsAt: timeToProto(after.RevertsAt),
	}, nil
}

var logLevels = map[migcontrollerv1.LogLevel]slog.Level{
	migcontrollerv1.LogLevel_LOG_LEVEL_DEBUG: slog.LevelDebug,
	migcontrollerv1.LogLevel_LOG_LEVEL_INFO:  slog.LevelInfo,
	migcontrollerv1.LogLevel_LOG_LEVEL_WARN:  slog.LevelWarn,
	migcontrollerv1.LogLevel_LOG_LEVEL_ERROR: slog.LevelError,
}

// logLevelToProto returns the most severe known level that is not above l.
func logLevelToProto(l slog.Level) migcontrollerv1.LogLevel {
	for _, level := range slices.Backward(slices.Sorted(maps.Keys(logLevels))) {
		if logLevels[level] <= l {
			return level
		}
	}
	return migcontrollerv1.LogLevel_LOG_LEVEL_DEBUG
}
