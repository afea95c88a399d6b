package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/httpserver"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// The exit statuses of the process.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// Main runs the controller until a signal stops it and returns the exit status: 0 after SIGINT
// or SIGTERM, 1 after a failure or a signal during the stop, 2 when an option is invalid. With a
// drain delay the stop begins after it, or with the second signal. After the options are read,
// the controller does not depend on stdout and stderr: they may block or fail. SIGHUP is ignored.
//
// "controller token …" creates, lists and revokes tokens of the running controller instead, with
// migctl.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer, migctl CommandLine) int {
	if len(args) > 0 && args[0] == tokenCommand {
		return runToken(args[1:], os.Environ(), stdin, stdout, stderr, migctl)
	}
	var background sync.WaitGroup
	stop := make(chan struct{})
	background.Go(func() { returnMemory(stop) })
	defer background.Wait()
	defer close(stop)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	// A closed terminal or log reader must not end the process.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGHUP, syscall.SIGPIPE)
	p := program{environ: os.Environ(), stdout: stdout, stderr: stderr, signals: signals, burst: signalBurst, wiring: defaultWiring()}
	return p.run(args)
}

// program is the process around an App.
type program struct {
	environ []string
	stdout  io.Writer
	stderr  io.Writer
	signals <-chan os.Signal
	burst   time.Duration
	wiring  wiring
}

func (p program) run(args []string) int {
	o, err := config.Parse(args, p.environ)
	switch {
	case errors.Is(err, config.ErrHelp):
		fmt.Fprint(p.stdout, config.HelpText())
		return exitOK
	case errors.Is(err, config.ErrVersion):
		fmt.Fprint(p.stdout, versionLine())
		return exitOK
	case err != nil:
		return p.refuse(err)
	}
	stdout, stderr := newLineQueue(p.stdout, nil), newLineQueue(p.stderr, func(lost int) []byte { return lostLines(o, lost) })
	defer flush(stdout, stderr)
	p.wiring.droppedLines = func() float64 { return float64(stdout.dropped.Load() + stderr.dropped.Load()) }
	p.stdout, p.stderr = stdout, stderr
	log := newLogger(o, p.stderr)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended, serving := make(chan error, 1), make(chan *App, 1)
	go func() { ended <- p.serve(ctx, o, log, serving) }()
	select {
	case err = <-ended:
	case by := <-p.signals:
		log := log.With(signalKey, by.String())
		var over bool
		if over, err = p.drain(serving, ended, o.DrainDelay, log); !over {
			log.Info("stopping; another signal stops at once")
			cancel()
			over, err = p.await(ended, nil)
		}
		if !over {
			log.Warn("stopped at once by another signal")
			return exitFailure
		}
	}
	return p.report(err, o, log)
}

// drain serves for the delay, or until a signal arrives, with readiness checks that fail. It
// returns at once if the App does not serve yet. over is whether the App has ended, with err.
func (p program) drain(
	serving <-chan *App, ended <-chan error, delay time.Duration, log *slog.Logger,
) (over bool, err error) {
	if delay == 0 {
		return false, nil
	}
	select {
	case a := <-serving:
		a.Drain(time.Now().Add(delay))
		log.Info("draining; another signal begins the stop", delayKey, delay.String())
		return p.await(ended, time.After(delay))
	default:
		return false, nil
	}
}

// signalBurst is how long after a signal another one counts as the same. Terminals and
// programs like timeout signal a process and then its group, and a program that forwards
// signals doubles them.
const signalBurst = 500 * time.Millisecond

// await waits for the end of the App, which is over with err, for another signal, or for limit.
func (p program) await(ended <-chan error, limit <-chan time.Time) (over bool, err error) {
	var burst <-chan time.Time
	if p.burst > 0 {
		burst = time.After(p.burst)
	}
	for {
		select {
		case err := <-ended:
			return true, err
		case <-limit:
			return false, nil
		case <-burst:
			burst = nil
		case <-p.signals:
			if burst == nil {
				return false, nil
			}
		}
	}
}

// serve runs an App from start to stop, and sends it to serving in between. A stop during the
// start is not an error.
func (p program) serve(ctx context.Context, o config.Options, log *slog.Logger, serving chan<- *App) error {
	if limit, known := httpserver.OpenFiles(); known {
		warnFewFiles(limit, log)
	}
	a, err := newApp(ctx, o, log, p.stdout, p.wiring)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	if err != nil {
		return err
	}
	serving <- a
	return a.Run(ctx)
}

func (p program) report(err error, o config.Options, log *slog.Logger) int {
	var option *config.OptionError
	switch {
	case err == nil:
		log.Info("stopped")
		return exitOK
	case errors.As(err, &option) && o.LogFormat != config.FormatJSON:
		return p.refuse(err)
	case errors.As(err, &option):
		log.Error("invalid option", logkey.Error, err)
		return exitUsage
	default:
		log.Error("the controller ended", logkey.Error, err)
		return exitFailure
	}
}

func (p program) refuse(err error) int {
	fmt.Fprintf(p.stderr, "controller: %v\nRun controller --help to see all options.\n", err)
	return exitUsage
}
