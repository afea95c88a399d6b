package rpc

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// fakeLog is a LogControl that changes nothing. It returns to WARN.
type fakeLog struct {
	mu    sync.Mutex
	level LogLevel
}

func newFakeLog() *fakeLog {
	return &fakeLog{level: LogLevel{Level: slog.LevelInfo, Configured: slog.LevelWarn}}
}

func (f *fakeLog) LogLevel() LogLevel {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.level
}

func (f *fakeLog) SetLogLevel(_ context.Context, level slog.Level, d time.Duration) (before, after LogLevel) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before = f.level
	f.level.Level, f.level.RevertsAt = level, time.Time{}
	if d > 0 {
		f.level.RevertsAt = testServer.StartedAt.Add(d)
	}
	return before, f.level
}

// Every level can be set and is reported, by SetLogLevel and by GetServerInfo.
func TestSetLogLevel(t *testing.T) {
	t.Parallel()
	server := testServer
	server.Log = newFakeLog()
	admin := NewAdminService(nil, server)
	before := migcontrollerv1.LogLevel_LOG_LEVEL_INFO
	for level := migcontrollerv1.LogLevel_LOG_LEVEL_DEBUG; level <= migcontrollerv1.LogLevel_LOG_LEVEL_ERROR; level++ {
		got, err := admin.SetLogLevel(t.Context(), &migcontrollerv1.SetLogLevelRequest{Level: level})
		require.NoError(t, err)
		require.Equal(t, level, got.GetLevel())
		require.Equal(t, before, got.GetPreviousLevel())
		require.Equal(t, migcontrollerv1.LogLevel_LOG_LEVEL_WARN, got.GetConfiguredLevel())
		require.Nil(t, got.GetRevertsAt())
		before = level
	}
	got, err := admin.SetLogLevel(t.Context(), &migcontrollerv1.SetLogLevelRequest{
		Level: migcontrollerv1.LogLevel_LOG_LEVEL_DEBUG, Duration: durationpb.New(time.Minute),
	})
	require.NoError(t, err)
	require.Equal(t, testServer.StartedAt.Add(time.Minute), got.GetRevertsAt().AsTime())
	info, err := admin.GetServerInfo(t.Context(), &migcontrollerv1.GetServerInfoRequest{})
	require.NoError(t, err)
	require.Equal(t, migcontrollerv1.LogLevel_LOG_LEVEL_DEBUG, info.GetLogLevel())
	require.Equal(t, got.GetRevertsAt().AsTime(), info.GetLogLevelRevertsAt().AsTime())
}

// Every value of the schema is a level, except the unspecified one.
func TestLogLevelsAreComplete(t *testing.T) {
	t.Parallel()
	require.Len(t, logLevels, len(migcontrollerv1.LogLevel_name)-1)
	for level, slogLevel := range logLevels {
		require.Equal(t, level, logLevelToProto(slogLevel))
		require.Equal(t, level, logLevelToProto(slogLevel+1), "levels in between")
	}
	require.Equal(t, migcontrollerv1.LogLevel_LOG_LEVEL_DEBUG, logLevelToProto(slog.LevelDebug-1))
}
