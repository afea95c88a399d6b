package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// logLevels are the levels of the controller's log.
var logLevels = []string{"debug", "info", "warn", "error"}

const logLevelPrefix = "LOG_LEVEL_"

type logLevelCmd struct {
	Level string   `arg:"" optional:"" name:"level" help:"The new level: debug, info, warn or error. Default: show the level."`
	For   duration `name:"for" placeholder:"TIME" help:"Return to the configured level after this time, at most 7d. Default: do not return by itself."`
	reasonFlag
}

// Help returns the command's help text.
func (logLevelCmd) Help() string {
	return examples(
		"A restart of the controller returns to the configured level too.",
		"migctl log-level",
		"migctl log-level debug --for 10m",
	)
}

// Run shows or changes the level of the controller's log.
func (cmd logLevelCmd) Run(ctx context.Context, in *invocation) error {
	switch {
	case cmd.Level == "" && cmd.For > 0:
		return usage("--for needs a level: debug, info, warn or error")
	case cmd.Level == "" && cmd.Reason != "":
		return usage("--reason needs a level: debug, info, warn or error")
	case cmd.Level != "" && !slices.Contains(logLevels, cmd.Level):
		return usage("%q must be one of %s", cmd.Level, strings.Join(logLevels, ", "))
	}
	if err := in.dial(); err != nil {
		return err
	}
	res, err := cmd.call(ctx, in)
	if err != nil {
		return err
	}
	t := fields()
	t.field("Level", plain(levelName(res.GetLevel())))
	if cmd.Level != "" {
		t.field("Before", plain(levelName(res.GetPreviousLevel())))
	}
	t.field("Configured", plain(levelName(res.GetConfiguredLevel())))
	t.field("Returns", in.whenBoth(res.GetRevertsAt()))
	return in.writeRecord(res, t)
}

// call returns the level after the change, or the current one.
func (cmd logLevelCmd) call(ctx context.Context, in *invocation) (*migcontrollerv1.SetLogLevelResponse, error) {
	if cmd.Level == "" {
		info, err := callRPC(ctx, in, 0, in.client.GetServerInfo, &migcontrollerv1.GetServerInfoRequest{})
		return &migcontrollerv1.SetLogLevelResponse{
			Level: info.GetLogLevel(), ConfiguredLevel: info.GetConfiguredLogLevel(), RevertsAt: info.GetLogLevelRevertsAt(),
		}, err
	}
	req := &migcontrollerv1.SetLogLevelRequest{
		Level:  migcontrollerv1.LogLevel(migcontrollerv1.LogLevel_value[logLevelPrefix+strings.ToUpper(cmd.Level)]),
		Reason: cmd.Reason,
	}
	if cmd.For > 0 {
		req.Duration = durationpb.New(time.Duration(cmd.For))
	}
	return callRPC(ctx, in, 0, in.client.SetLogLevel, req)
}

func levelName(l migcontrollerv1.LogLevel) string {
	return strings.ToLower(strings.TrimPrefix(l.String(), logLevelPrefix))
}
