//go:build !linux

package faults

import "syscall"

func childProcess() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
