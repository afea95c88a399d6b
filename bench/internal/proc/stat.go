package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc/PID/stat: USER_HZ is 100 on all platforms of
// Go.
const tick = 10 * time.Millisecond

// CPU returns the processor time used by the process, user and system, with a resolution of
// 10 ms.
func CPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseCPU(stat)
}

func parseCPU(stat []byte) (time.Duration, error) {
	// The name of the program, in parentheses, may contain any characters.
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	const utime, stime = 11, 12 // counted from the field after the name
	if end < 0 || len(fields) <= stime {
		return 0, fmt.Errorf("stat of a process: too few fields: %q", stat)
	}
	var ticks int64
	for _, f := range []int{utime, stime} {
		n, err := strconv.ParseInt(fields[f], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat of a process: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// Status is the kernel's data about a process.
type Status struct {
	// RSS is the memory in use, in bytes.
	RSS int64
	// Threads is the number of threads.
	Threads int
	// Files is the number of open files.
	Files int
}

// ReadStatus reads the status of a process.
func ReadStatus(pid int) (Status, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Status{}, err
	}
	s, err := parseStatus(string(text))
	if err != nil {
		return s, err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	s.Files = len(files)
	return s, err
}

func parseStatus(text string) (s Status, err error) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch key {
		case "VmRSS":
			s.RSS, err = strconv.ParseInt(fields[0], 10, 64)
			s.RSS <<= 10
		case "Threads":
			s.Threads, err = strconv.Atoi(fields[0])
		}
		if err != nil {
			return s, fmt.Errorf("status of a process: %s: %w", key, err)
		}
	}
	if s.RSS == 0 || s.Threads == 0 {
		return s, fmt.Errorf("status of a process: no VmRSS or no Threads: %q", text)
	}
	return s, nil
}
