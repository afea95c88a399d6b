package migclient_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/gen/go/internal/clienttest"
)

// program is the path of the controller, for tests that start one.
var program string

func TestMain(m *testing.M) {
	ready := func(path string, _ *clienttest.Controller) error {
		program = path
		return nil
	}
	code := clienttest.Main(m, "../../..", ready, "--simulate=1")
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
