package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/internal/auth"
)

// Tokens lists the tokens of operators that the principal of ctx could have created, latest
// created first, in pages as Commands does. Errors: a *fleet.FieldError.
func (c *Control) Tokens(ctx context.Context, ended bool, size int, token string) ([]auth.Token, string, error) {
	size, err := pageSize(size)
	if err != nil {
		return nil, "", err
	}
	by := auth.From(ctx)
	scope := scopeOf(c.engine.ID(), "tokens", string(by.Role), by.Scope.String(), strconv.FormatBool(ended))
	all := c.tokens.List(ctx, ended)
	if token != "" {
		at, id, ok := tokenPlace(scope, token)
		if !ok {
			return nil, "", badToken()
		}
		rest := slices.IndexFunc(all, func(t auth.Token) bool {
			return cmp.Or(t.CreatedAt.Compare(at), cmp.Compare(t.ID, id)) < 0
		})
		if rest < 0 {
			return nil, "", nil
		}
		all = all[rest:]
	}
	if len(all) <= size {
		return all, "", nil
	}
	last := all[size-1]
	return all[:size], seal(scope, fmt.Sprintf("%d %s", last.CreatedAt.UnixNano(), last.ID)), nil
}

// tokenPlace returns the place after which a page of tokens begins.
func tokenPlace(scope, token string) (at time.Time, id string, ok bool) {
	place, ok := unseal(scope, token)
	nanos, id, _ := strings.Cut(place, " ")
	n, err := strconv.ParseInt(nanos, 10, 64)
	return time.Unix(0, n), id, ok && err == nil
}
