package config

import (
	"errors"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

const envPrefix = "CONTROLLER_"

// onCommandLine is the origin of flags.
const onCommandLine = "the command line"

// Parse returns these errors when the command line requests the help or the version.
var (
	ErrHelp    = errors.New("help requested")
	ErrVersion = errors.New("version requested")
)

// commandLine is the command line as kong parses it.
type commandLine struct {
	Options

	Version versionFlag `name:"version" group:"Help" help:"Print the version and exit."`
	Help    helpFlag    `name:"help" short:"h" group:"Help" help:"Print this text and exit."`

	sources *sources
}

type helpFlag bool

// BeforeReset ends parsing before anything is checked.
func (helpFlag) BeforeReset() error { return ErrHelp }

type versionFlag bool

// BeforeReset ends parsing before anything is checked.
func (versionFlag) BeforeReset() error { return ErrVersion }

// BeforeResolve reads the configuration file when the flags are known.
func (l *commandLine) BeforeResolve(ctx *kong.Context) error { return l.sources.open(ctx) }

// Parse reads options from args, environ, the file of --config and the defaults, in this order
// of precedence; an empty environment variable counts as not set. It returns an *OptionError
// for an invalid option, and another error for an unknown one. No error contains the
// registration token.
func Parse(args, environ []string) (Options, error) {
	src := &sources{environ: environ, origins: map[string]string{}}
	line := commandLine{sources: src}
	parser, err := newParser(&line)
	if err != nil {
		return Options{}, err
	}
	if _, err := parser.Parse(args); err != nil {
		return Options{}, src.explain(err, args)
	}
	o := line.Options
	o.origins, o.unknown, o.Operators = src.origins, src.unknown, src.operators
	return o, o.Check()
}

func newParser(line *commandLine) (*kong.Kong, error) {
	return kong.New(line,
		kong.Name("controller"),
		kong.NoDefaultHelp(),
		kong.Resolvers(line.sources),
		kong.KindMapper(reflect.String, kong.MapperFunc(decodeText)),
		kong.KindMapper(reflect.Int, kong.MapperFunc(decodeNumber)),
		kong.KindMapper(reflect.Bool, switchMapper{}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(decodeDuration)),
		kong.TypeMapper(reflect.TypeFor[Size](), kong.MapperFunc(decodeSize)),
		kong.TypeMapper(reflect.TypeFor[[]string](), kong.MapperFunc(decodeList)),
	)
}

// sources gives kong the values that are not on the command line. Kong's own handling of the
// environment is not used, because a resolver would override it.
type sources struct {
	environ []string
	file    configFile
	// operators is the section of the file.
	operators Operators
	origins   map[string]string
	unknown   []string
}

// open records which options are flags and reads the configuration file.
func (s *sources) open(ctx *kong.Context) error {
	for _, p := range ctx.Path {
		if p.Flag != nil {
			s.origins[p.Flag.Name] = onCommandLine
		}
	}
	flags := settable(ctx.Flags())
	s.unknown = unknownVariables(s.environ, flags)
	path, origin := "", ""
	for _, f := range ctx.Flags() {
		if f.Name != configOption {
			continue
		}
		if s.origins[f.Name] != "" {
			path, _ = ctx.FlagValue(f).(string)
			origin = onCommandLine
		} else {
			path, origin = s.variable(f.Name)
		}
	}
	if path == "" {
		return nil
	}
	file, operators, err := readConfig(path, flags)
	var unreadable *OptionError
	if errors.As(err, &unreadable) && unreadable.Origin == "" {
		unreadable.Origin = origin
	}
	s.file, s.operators = file, operators
	return err
}

// Resolve returns the value of an option that is not on the command line.
func (s *sources) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	text, origin := s.variable(flag.Name)
	value, inFile := s.file[flag.Name]
	switch {
	case isSettable(flag) && text != "":
	case inFile:
		text, origin = value.text, value.origin
	default:
		return nil, nil //nolint:nilnil // for kong this means that there is no value
	}
	s.origins[flag.Name] = origin
	return text, nil
}

// Validate does nothing: the file was checked when it was read.
func (s *sources) Validate(*kong.Application) error { return nil }

// variable returns the value of an option's environment variable.
func (s *sources) variable(option string) (text, origin string) {
	name := envName(option)
	for _, kv := range s.environ {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			text = v
		}
	}
	return text, "the environment variable " + name
}

// isSettable reports whether an option can be set other than by a flag.
func isSettable(f *kong.Flag) bool { return f.Group == nil || f.Group.Key != groupHelp }

func settable(flags []*kong.Flag) map[string]*kong.Flag {
	found := map[string]*kong.Flag{}
	for _, f := range flags {
		if isSettable(f) {
			found[f.Name] = f
		}
	}
	return found
}

// unknownVariables returns the names of variables with the prefix of options that are not
// options: usually misspelt ones. Variables that Kubernetes sets for a service called
// controller are left out.
func unknownVariables(environ []string, flags map[string]*kong.Flag) []string {
	known := map[string]bool{}
	for name := range flags {
		known[envName(name)] = true
	}
	var unread []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		kubernetes := strings.Contains(name, "_SERVICE_") || strings.Contains(name, "_PORT")
		if strings.HasPrefix(name, envPrefix) && !known[name] && !kubernetes {
			unread = append(unread, name)
		}
	}
	return unread
}

// explain translates kong's errors. Those contain words of the command line, which could be a
// token.
func (s *sources) explain(err error, args []string) error {
	var option *OptionError
	switch {
	case errors.Is(err, ErrHelp):
		return ErrHelp
	case errors.Is(err, ErrVersion):
		return ErrVersion
	case errors.As(err, &option):
		if option.Origin == "" {
			option.Origin = s.origins[option.Option]
		}
		if option.Origin == "" {
			option.Origin = onCommandLine
		}
		return option
	case strings.HasPrefix(err.Error(), "unexpected argument"):
		for _, a := range args {
			if strings.HasPrefix(a, "--registration-token") {
				return errors.New("unexpected argument: only options are accepted, as --name=value")
			}
		}
	case strings.HasPrefix(err.Error(), "bool value"):
		for _, a := range args {
			if name, _, given := strings.Cut(a, "="); given && strings.HasPrefix(name, "--no-") {
				return &OptionError{Option: name[len("--"):], Rule: switchRule, Origin: onCommandLine}
			}
		}
	}
	return err
}
