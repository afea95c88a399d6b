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

// Version returns the controller's version: that of the linker, otherwise that of the build
// information, otherwise dev.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// versionLine returns the text of --version.
func versionLine() string {
	line := fmt.Sprintf("controller %s (%s %s/%s", Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if commit := buildCommit(); commit != "" {
		line += ", commit " + commit
	}
	return line + ")\n"
}

// buildCommit returns the commit of the build; empty if it is not known.
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
