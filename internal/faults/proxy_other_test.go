//go:build faults && !linux

package faults

import "syscall"

func proxyProcess() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
