package target

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The addresses are those of the record that has both, whatever else a server logs.
func TestFindAddresses(t *testing.T) {
	t.Parallel()
	log := "text\n{\"msg\":\"x\"}\n{\"grpc_addr\":\"127.0.0.1:1\"}\n" +
		"{\"msg\":\"controller started\",\"http_addr\":\"127.0.0.1:3\",\"grpc_addr\":\"127.0.0.1:2\"}\n"
	grpc, web, ok := findAddresses([]byte(log))
	require.True(t, ok)
	require.Equal(t, "127.0.0.1:2", grpc)
	require.Equal(t, "127.0.0.1:3", web)
	_, _, ok = findAddresses([]byte(log[:len(log)-20]))
	require.False(t, ok, "an incomplete record is ignored")
}
