package cli

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// SetLogLevel implements AdminService. The configured level is INFO.
func (f *fakeFleet) SetLogLevel(
	ctx context.Context, req *migcontrollerv1.SetLogLevelRequest,
) (*migcontrollerv1.SetLogLevelResponse, error) {
	if f.old {
		return f.UnimplementedAdminServiceHandler.SetLogLevel(ctx, req)
	}
	if err := f.receive(req); err != nil {
		return nil, err
	}
	res := &migcontrollerv1.SetLogLevelResponse{
		Level: req.GetLevel(), PreviousLevel: migcontrollerv1.LogLevel_LOG_LEVEL_INFO, ConfiguredLevel: migcontrollerv1.LogLevel_LOG_LEVEL_INFO,
	}
	if req.GetDuration() != nil {
		res.RevertsAt = timestamppb.New(epoch.Add(req.GetDuration().AsDuration()))
	}
	return res, nil
}

// Every level of the schema can be set.
func TestLogLevels(t *testing.T) {
	t.Parallel()
	require.Len(t, logLevels, len(migcontrollerv1.LogLevel_name)-1)
	for _, level := range logLevels {
		d := newDriver(t)
		stdout, stderr, code := d.run("log-level", level)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, level)
		require.Len(t, d.fleet.requests, 1)
	}
}

// A controller without SetLogLevel is reported as one of another version.
func TestLogLevelOfAnOldController(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.fleet.old = true
	for _, args := range [][]string{{"log-level"}, {"log-level", "debug"}} {
		stdout, stderr, code := d.run(args...)
		require.Equal(t, exitUnavailable, code, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "may differ in version")
	}
}
