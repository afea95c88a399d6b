package rpc

import (
	"context"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/control"
)

// accessService implements AccessService. Like adminService it returns domain errors.
type accessService struct {
	migcontrollerv1connect.UnimplementedAccessServiceHandler
	tokens  *auth.Tokens
	control *control.Control
}

var _ migcontrollerv1connect.AccessServiceHandler = (*accessService)(nil)

// NewAccessService returns the handler of AccessService.
func NewAccessService(t *auth.Tokens, c *control.Control) migcontrollerv1connect.AccessServiceHandler {
	return &accessService{tokens: t, control: c}
}

// WhoAmI implements AccessService.
func (*accessService) WhoAmI(ctx context.Context, _ *migcontrollerv1.WhoAmIRequest) (*migcontrollerv1.WhoAmIResponse, error) {
	return &migcontrollerv1.WhoAmIResponse{Principal: principalToProto(auth.From(ctx))}, nil
}

// CreateToken implements AccessService.
func (s *accessService) CreateToken(
	ctx context.Context, req *migcontrollerv1.CreateTokenRequest,
) (*migcontrollerv1.CreateTokenResponse, error) {
	ttl, err := durationFromProto("ttl", req.GetTtl())
	if err != nil {
		return nil, err
	}
	token, secret, err := s.tokens.Create(ctx, auth.TokenRequest{
		Name: req.GetName(), Role: roleFromProto(req.GetRole()), Pools: req.GetPools(), TTL: ttl,
	})
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.CreateTokenResponse{Token: tokenToProto(token), Secret: secret}, nil
}

// ListTokens implements AccessService.
func (s *accessService) ListTokens(
	ctx context.Context, req *migcontrollerv1.ListTokensRequest,
) (*migcontrollerv1.ListTokensResponse, error) {
	page, next, err := s.control.Tokens(ctx, req.GetIncludeEnded(), int(req.GetPageSize()), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.ListTokensResponse{Tokens: allToProto(page, tokenToProto), NextPageToken: next}, nil
}

// RevokeToken implements AccessService.
func (s *accessService) RevokeToken(
	ctx context.Context, req *migcontrollerv1.RevokeTokenRequest,
) (*migcontrollerv1.RevokeTokenResponse, error) {
	token, err := s.tokens.Revoke(ctx, req.GetTokenId())
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.RevokeTokenResponse{Token: tokenToProto(token)}, nil
}

var rolesOfProto = map[migcontrollerv1.Role]auth.Role{
	migcontrollerv1.Role_ROLE_VIEWER:   auth.Viewer,
	migcontrollerv1.Role_ROLE_OPERATOR: auth.Operator,
	migcontrollerv1.Role_ROLE_ADMIN:    auth.Admin,
}

// roleFromProto returns a role; an empty one, which is invalid, for every other value.
func roleFromProto(r migcontrollerv1.Role) auth.Role { return rolesOfProto[r] }

func roleToProto(r auth.Role) migcontrollerv1.Role {
	for shown, role := range rolesOfProto {
		if role == r {
			return shown
		}
	}
	return migcontrollerv1.Role_ROLE_UNSPECIFIED
}

var authMethods = map[auth.Method]migcontrollerv1.AuthMethod{
	auth.Unauthenticated: migcontrollerv1.AuthMethod_AUTH_METHOD_NONE,
	auth.Socket:          migcontrollerv1.AuthMethod_AUTH_METHOD_SOCKET,
	auth.ByToken:         migcontrollerv1.AuthMethod_AUTH_METHOD_TOKEN,
	auth.ByOIDC:          migcontrollerv1.AuthMethod_AUTH_METHOD_OIDC,
	auth.ByCertificate:   migcontrollerv1.AuthMethod_AUTH_METHOD_CERTIFICATE,
}

func principalToProto(p auth.Principal) *migcontrollerv1.Principal {
	return &migcontrollerv1.Principal{
		Name: p.Name, Method: authMethods[p.Method], Role: roleToProto(p.Role), Pools: p.Scope.Pools(),
		ExpiresAt: timeToProto(p.ExpiresAt), TokenId: p.TokenID,
	}
}

func tokenToProto(t auth.Token) *migcontrollerv1.Token {
	return &migcontrollerv1.Token{
		Id: t.ID, Name: t.Name, Role: roleToProto(t.Role), Pools: t.Pools,
		CreatedAt: timeToProto(t.CreatedAt), CreatedBy: t.CreatedBy, ExpiresAt: timeToProto(t.ExpiresAt),
		LastUsedAt: timeToProto(t.LastUsedAt), RevokedAt: timeToProto(t.RevokedAt), RevokedBy: t.RevokedBy,
	}
}
