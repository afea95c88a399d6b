//go:build unix

package cli

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

const (
	ctrlC = "\x03"
	green = 2
	amber = 3
)

// startFleet starts a controller and simulated VMs with ideal agents, and waits until all
// are registered.
func startFleet(t *testing.T, vms int, flags ...string) (address string) {
	t.Helper()
	address = controller(t)
	flags = append([]string{"--controller", address, "--agent", "ideal", "--vms", strconv.Itoa(vms)}, flags...)
	background(t, "migletsim", "", flags...)
	s := migctl(t, 100, address, "watch")
	s.sees("press Ctrl-C to stop")
	ready := func() bool {
		list := migctl(t, 100, address, "vms")
		require.Zero(t, list.ends())
		return strings.Count(list.text(), " registered") == vms
	}
	s.until("all VMs registered", ready)
	s.types(ctrlC)
	require.Zero(t, s.ends())
	return address
}

// A watch prints changes in colour with complete ids, adapts to a resized terminal, and
// exits cleanly on Ctrl-C.
func TestScreenWatch(t *testing.T) {
	t.Parallel()
	address := startFleet(t, 1)
	s := migctl(t, 120, address, "watch")
	s.sees("Watching " + address + "; press Ctrl-C to stop.")
	require.Zero(t, migctl(t, 80, address, "send", "sim-vm-0001", "drain", "--id", "first").ends())
	s.sees("drain first: the agent acked it")
	require.Equal(t, green, s.colourOf("SUCCEEDED"))

	s.resize(60)
	require.Zero(t, migctl(t, 80, address, "send", "sim-vm-0001", "drain", "--id", "the-second-one").ends())
	s.sees("\n  drain the-second-one: the agent acked it")
	require.Equal(t, green, s.colourOf("SUCCEEDED"))
	s.types(ctrlC)
	require.Zero(t, s.ends())
	require.Contains(t, s.lines()[len(s.lines())-1], "migctl watch --cursor ")
}

// events -f prints stored events, and then follows new ones.
func TestScreenEvents(t *testing.T) {
	t.Parallel()
	address := startFleet(t, 1)
	s := migctl(t, 100, address, "events", "-f", "--type", "runner_registered")
	s.sees("sim-vm-0001       runner_registered")
	s.types(ctrlC)
	require.Zero(t, s.ends())
}

// send --wait first reports that it waits, prints the result in colour, and can be
// interrupted.
func TestScreenSend(t *testing.T) {
	t.Parallel()
	address := startFleet(t, 1)
	s := migctl(t, 80, address, "send", "sim-vm-0001", "drain", "--id", "d1", "--wait", "20s")
	require.Zero(t, s.ends())
	require.Equal(t, "Sending d1; waiting up to 20s for it to end.", s.lines()[0])
	require.Equal(t, green, s.colourOf("SUCCEEDED"))

	s = migctl(t, 80, address, "send", "sim-vm-001", "drain", "--id", "d2", "--wait", "20s")
	s.sees("Did you mean sim-vm-0001?")
	s.types(ctrlC)
	require.Equal(t, exitInterrupted, s.ends())
	require.Contains(t, s.text(), "migctl cancel d2")
}

// A broadcast asks for confirmation, and sends nothing on no or Ctrl-C.
func TestScreenBroadcast(t *testing.T) {
	t.Parallel()
	address := startFleet(t, 3)
	ask := func(answer string) *screen {
		s := migctl(t, 100, address, "broadcast", "drain", "--wait", "20s")
		s.sees("Send drain to 3 VMs, the whole fleet, at " + address + "? [y/N]")
		s.types(answer)
		return s
	}
	s := ask("n\r")
	require.Equal(t, exitFailed, s.ends())
	require.Contains(t, s.text(), "nothing was sent")
	require.Equal(t, exitInterrupted, ask(ctrlC).ends())
	s = migctl(t, 100, address, "commands", "--type", "drain")
	require.Zero(t, s.ends())
	require.Equal(t, "No command matches.", s.text())

	s = ask("y\r")
	require.Zero(t, s.ends(), s.text())
	lines := s.lines()
	require.Len(t, lines, 8, "a warning, the question, a table and the counts, without the progress line:\n%s", s.text())
	require.Equal(t, "3 of 3 accepted, 3 succeeded, 0 did not succeed, 0 not finished.", lines[7])
	require.Equal(t, green, s.colourOf("SUCCEEDED"))
}

// A drain shows a progress line that is cleared at the end, also after Ctrl-C.
func TestScreenDrain(t *testing.T) {
	t.Parallel()
	address := startFleet(t, 1)
	s := migctl(t, 100, address, "drain", "sim-vm-0001")
	require.Zero(t, s.ends())
	require.NotContains(t, s.text(), "1 of 1, ")

	s = migctl(t, 100, address, "drain", "sim-vm-0001", "elsewhere")
	s.sees("elsewhere has never connected: the command waits until it does.")
	s.sees("1 of 2, 0 failed")
	s.types(ctrlC)
	require.Equal(t, exitInterrupted, s.ends())
	require.NotContains(t, s.text(), "1 of 2, ")
	require.Contains(t, s.text(), "of 2 accepted")
}

// Tables with long ids never truncate an id at any usual terminal width, and report hidden
// columns. The terminal wraps no line of a table.
func TestScreenTables(t *testing.T) {
	t.Parallel()
	address := startFleet(t, 3, "--vm-prefix", "runner-pool-a-7f3c9d2k-", "--pool", "runner-pool-a", "--job-every", "0")
	for _, want := range []struct {
		width, vms, commands int // lines of the tables
		hidden               []string
	}{
		{60, 4, 8, []string{"POOL", ""}},
		{80, 4, 7, []string{"POOL", "TYPE."}},
		{110, 4, 4, []string{"", "ACCEPTED."}},
		{200, 4, 4, []string{"", ""}},
	} {
		for i, list := range []string{"vms", "commands"} {
			s := migctl(t, want.width, address, list)
			require.Zero(t, s.ends())
			table, note, hidden := strings.Cut(s.text(), "\nHidden columns: ")
			require.Equal(t, want.hidden[i] != "", hidden, s.text())
			require.True(t, strings.HasPrefix(note, want.hidden[i]), s.text())
			require.Equal(t, []int{want.vms, want.commands}[i], strings.Count(table, "\n")+1, s.text())
			for n := range 3 {
				require.Contains(t, strings.Fields(table), fmt.Sprintf("runner-pool-a-7f3c9d2k-%04d", n+1))
			}
			require.Equal(t, green, s.colourOf([]string{"yes", "SUCCEEDED"}[i]))
		}
	}
}

// bash completes commands, flags, flag values and VM ids.
func TestScreenBash(t *testing.T) {
	t.Parallel()
	address := startFleet(t, 2)
	contexts := writeFile(t, "config.yaml", "contexts:\n  my lab: {address: 'http://a'}\n  my $HOME's (2): {address: 'http://b'}\n  a:b c: {address: 'http://c'}\n")
	s := open(t, 100, []string{addressEnv + "=" + address, configEnv + "=" + contexts, "PS1=> "}, "bash", "--norc", "--noprofile", "-i")
	s.sees(">")
	s.types("source <(migctl completion bash)\r")
	for _, line := range []struct{ typed, shown string }{
		{"migctl dr\t", "migctl drain "},
		{"migctl drain sim\t", "migctl drain sim-vm-000"},
		{"migctl vm sim-vm-0002\t", "migctl vm sim-vm-0002 "},
		{"migctl vm sim-vm-000\t\t", "sim-vm-0001  sim-vm-0002"},
		{"migctl events --vm sim-vm-000\t\t", "sim-vm-0001  sim-vm-0002"},
		{"migctl vms -o j\t", "migctl vms -o json "},
		{"migctl vms --output=y\t", "migctl vms --output=yaml "},
		{"migctl send sim-vm-0001 set_\t", "migctl send sim-vm-0001 set_log_level "},
		{"migctl vms --off\t", "migctl vms --offline "},
		{"migctl config use-context my\\ l\t", `migctl config use-context my\ lab `},
		{"migctl config use-context 'my l\t", `migctl config use-context 'my lab' `},
		{"migctl config use-context \"my l\t", `migctl config use-context "my lab" `},
		{"migctl config use-context my\\ $\t", `migctl config use-context my\ \$HOME\'s\ \(2\) `},
		{"migctl config use-context \"my \\$\t", `migctl config use-context "my \$HOME's (2)" `},
		{"migctl config use-context a:\t", `migctl config use-context a:b\ c `},
		{"migctl vms --context=my\\ l\t", `migctl vms --context=my\ lab `},
	} {
		s.types("clear\r")
		s.until("a clear screen", func() bool { return s.text() == ">" })
		s.types(line.typed + "|")
		s.sees(line.shown)
		s.sees("|")
		s.types("\x15") // Ctrl-U clears the line
	}
	s.types("exit\r")
	s.sees("exit")
}

// When the reader of a pipe exits, SIGPIPE terminates migctl without an error message.
func TestScreenSIGPIPE(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.fleet.lock.Lock()
	d.fleet.vms = nil
	for i := range 20_000 {
		d.fleet.vms = append(d.fleet.vms, &migcontrollerv1.VM{VmId: fmt.Sprintf("vm-%05d", i)})
	}
	d.fleet.lock.Unlock()
	s := open(t, 100, []string{addressEnv + "=" + d.server.URL}, "bash", "-c", "migctl vms --no-headers | head -n 1; echo ${PIPESTATUS[*]}")
	require.Zero(t, s.ends())
	require.Equal(t, []string{"vm-00000  -  no  -  -  -  -", "141 0"}, s.lines())
}
