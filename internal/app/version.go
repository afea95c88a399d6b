package app

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker for releases:
//
//	-ldflags "-X github.com/mig-controller/mig-controller/internal/app.version=v1.2.3"
var version string

// Version returns the controller's version: what was given to the linker, else what
// the build recorded, else dev.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// versionLine is what --version prints.
func versionLine() string {
	line := fmt.Sprintf("controller %s (%s %s/%s", Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if commit := buildCommit(); commit != "" {
		line += ", commit " + commit
	}
	return line + ")\n"
}

// buildCommit returns the commit that was built; empty when it is not known.
func buildCommit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	commit, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = ", modified"
		}
	}
	if commit == "" {
		return ""
	}
	return commit + modified
}
