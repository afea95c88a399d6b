package rpc

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/auth"
)

// noTokens stores nothing.
type noTokens struct{}

func (noTokens) Tokens(context.Context) ([]auth.Token, error) { return nil, nil }
func (noTokens) HadTokens(context.Context) (bool, error)      { return false, nil }
func (noTokens) SaveToken(context.Context, auth.Token) error  { return nil }
func (noTokens) RemoveTokens(context.Context, []string) error { return nil }

// BenchmarkUnaryCall compares a call without credentials with one that has a token. The call
// itself does nothing.
func BenchmarkUnaryCall(b *testing.B) {
	tokens, err := auth.OpenTokens(b.Context(), noTokens{}, time.Now, slog.New(slog.DiscardHandler), nil)
	require.NoError(b, err)
	_, secret, err := tokens.Create(auth.With(b.Context(), auth.Local()), auth.TokenRequest{Name: "ci", Role: auth.Viewer})
	require.NoError(b, err)
	bearer := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+secret)
			return next(ctx, req)
		}
	})
	for name, test := range map[string]struct {
		admitter Admitter
		options  []connect.ClientOption
	}{
		"none":  {anyone{}, nil},
		"token": {auth.New(auth.Options{Tokens: tokens}), []connect.ClientOption{connect.WithInterceptors(bearer)}},
	} {
		b.Run(name, func(b *testing.B) {
			c := config(&fakeAgents{})
			c.Operators = test.admitter
			calls := migcontrollerv1connect.NewAdminServiceClient(client(b, 1), "http://"+serve(b, NewHandler(c)), test.options...)
			for b.Loop() {
				_, err := calls.GetCommand(b.Context(), &migcontrollerv1.GetCommandRequest{CommandId: "c"})
				require.NoError(b, err)
			}
		})
	}
}
