package commandsconnect_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/gen/go/internal/clienttest"
)

// shared is the controller for all tests and the example.
var shared *clienttest.Controller

func TestMain(m *testing.M) {
	ready := func(_ string, c *clienttest.Controller) error {
		shared = c
		return nil
	}
	code := clienttest.Main(m, "../../../../..", ready)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
