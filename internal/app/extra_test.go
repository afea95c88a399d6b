package app

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/emptypb"
)

// An additional service is served on both addresses, with the same interceptors as the others.
func TestNewWith(t *testing.T) {
	t.Parallel()
	a, err := NewWith(t.Context(), testOptions(t), quiet(), io.Discard,
		func(options ...connect.HandlerOption) (string, http.Handler) {
			return "/test.Extra/", connect.NewUnaryHandler("/test.Extra/Fail",
				func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
					return nil, errors.New("what nobody may see")
				}, options...)
		})
	require.NoError(t, err)
	stop := startApp(t, a)
	for _, addr := range []string{a.HTTPAddr(), a.GRPCAddr()} {
		extra := connect.NewClient[emptypb.Empty, emptypb.Empty](h1Client(t), "http://"+addr+"/test.Extra/Fail")
		_, err := extra.CallUnary(t.Context(), connect.NewRequest(&emptypb.Empty{}))
		require.Equal(t, connect.CodeInternal, connect.CodeOf(err))
		require.ErrorContains(t, err, "internal error", "the controller's interceptor has seen it")
		requireServes(t, addr)
	}
	require.NoError(t, stop())
}
