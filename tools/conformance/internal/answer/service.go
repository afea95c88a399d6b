// Package answer owns the service that the connectrpc conformance suite calls: it answers
// each call as the call itself requires, and reports the request. It follows the suite's
// docs/testing_servers.md and its schema.
package answer

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	conformancev1 "github.com/mig-controller/mig-controller/tools/conformance/gen/connectrpc/conformance/v1"
	"github.com/mig-controller/mig-controller/tools/conformance/gen/connectrpc/conformance/v1/conformancev1connect"
)

// Service is the ConformanceService. It is safe for concurrent use.
type Service struct {
	conformancev1connect.UnimplementedConformanceServiceHandler // implements the method Unimplemented
}

// Unary answers with data or an error.
func (Service) Unary(
	ctx context.Context, req *connect.Request[conformancev1.UnaryRequest],
) (*connect.Response[conformancev1.UnaryResponse], error) {
	received := newCall(ctx, req.Header(), req.Peer().Query, req.Msg)
	payload, err := received.one(ctx, req.Msg.GetResponseDefinition())
	if err != nil {
		return nil, err
	}
	return withMetadata(&conformancev1.UnaryResponse{Payload: payload}, req.Msg.GetResponseDefinition()), nil
}

// IdempotentUnary is Unary, also callable by GET.
func (Service) IdempotentUnary(
	ctx context.Context, req *connect.Request[conformancev1.IdempotentUnaryRequest],
) (*connect.Response[conformancev1.IdempotentUnaryResponse], error) {
	received := newCall(ctx, req.Header(), req.Peer().Query, req.Msg)
	payload, err := received.one(ctx, req.Msg.GetResponseDefinition())
	if err != nil {
		return nil, err
	}
	return withMetadata(&conformancev1.IdempotentUnaryResponse{Payload: payload}, req.Msg.GetResponseDefinition()), nil
}

// ClientStream reads all requests, and answers as the first one requires.
func (Service) ClientStream(
	ctx context.Context, stream *connect.ClientStream[conformancev1.ClientStreamRequest],
) (*connect.Response[conformancev1.ClientStreamResponse], error) {
	received := newCall(ctx, stream.RequestHeader(), stream.Peer().Query)
	var first *conformancev1.ClientStreamRequest
	for stream.Receive() {
		if first == nil {
			first = stream.Msg()
		}
		received.add(stream.Msg())
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	payload, err := received.one(ctx, first.GetResponseDefinition())
	if err != nil {
		return nil, err
	}
	return withMetadata(&conformancev1.ClientStreamResponse{Payload: payload}, first.GetResponseDefinition()), nil
}

// ServerStream answers with any number of messages and optionally an error.
func (Service) ServerStream(
	ctx context.Context, req *connect.Request[conformancev1.ServerStreamRequest],
	stream *connect.ServerStream[conformancev1.ServerStreamResponse],
) error {
	a := &answers{
		call: newCall(ctx, req.Header(), req.Peer().Query, req.Msg), definition: req.Msg.GetResponseDefinition(),
		begin: func() error { return stream.Send(nil) },
		send: func(p *conformancev1.ConformancePayload) error {
			return stream.Send(&conformancev1.ServerStreamResponse{Payload: p})
		},
	}
	a.setMetadata(stream.ResponseHeader(), stream.ResponseTrailer())
	return a.finish(ctx)
}

// BidiStream answers each request with a message if the first one requires that,
// otherwise when all requests have been read; then with the remaining messages, and
// optionally an error.
func (Service) BidiStream(
	ctx context.Context, stream *connect.BidiStream[conformancev1.BidiStreamRequest, conformancev1.BidiStreamResponse],
) error {
	a := &answers{
		call:  newCall(ctx, stream.RequestHeader(), stream.Peer().Query),
		begin: func() error { return stream.Send(nil) },
		send: func(p *conformancev1.ConformancePayload) error {
			return stream.Send(&conformancev1.BidiStreamResponse{Payload: p})
		},
	}
	for first, inTurn := true, false; ; first = false {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return a.finish(ctx)
		}
		if err != nil {
			return err
		}
		if first {
			inTurn, a.definition = req.GetFullDuplex(), req.GetResponseDefinition()
			a.setMetadata(stream.ResponseHeader(), stream.ResponseTrailer())
		}
		a.call.add(req)
		if !inTurn {
			continue
		}
		if a.left() == 0 {
			return a.finish(ctx)
		}
		if err := a.next(ctx); err != nil {
			return err
		}
		a.call.requests = nil // the next message reports only later requests
	}
}

// call is the received request.
type call struct {
	headers, query []*conformancev1.Header
	timeoutMs      *int64
	requests       []*anypb.Any
}

func newCall(ctx context.Context, headers http.Header, query url.Values, requests ...proto.Message) *call {
	c := &call{headers: fields(headers), query: fields(query)}
	if deadline, ok := ctx.Deadline(); ok {
		c.timeoutMs = new(time.Until(deadline).Milliseconds())
	}
	for _, r := range requests {
		c.add(r)
	}
	return c
}

func (c *call) add(request proto.Message) {
	packed, err := anypb.New(request)
	if err != nil {
		return // it was decoded, so it can be encoded
	}
	c.requests = append(c.requests, packed)
}

func (c *call) info() *conformancev1.ConformancePayload_RequestInfo {
	info := &conformancev1.ConformancePayload_RequestInfo{
		RequestHeaders: c.headers, TimeoutMs: c.timeoutMs, Requests: c.requests,
	}
	if len(c.query) > 0 {
		info.ConnectGetInfo = &conformancev1.ConformancePayload_ConnectGetInfo{QueryParams: c.query}
	}
	return info
}

// one returns the answer to a call with a single answer.
func (c *call) one(
	ctx context.Context, d *conformancev1.UnaryResponseDefinition,
) (*conformancev1.ConformancePayload, error) {
	if err := wait(ctx, d.GetResponseDelayMs()); err != nil {
		return nil, err
	}
	if d.GetError() == nil {
		return &conformancev1.ConformancePayload{Data: d.GetResponseData(), RequestInfo: c.info()}, nil
	}
	err := toConnect(d.GetError(), c.info())
	addFields(err.Meta(), d.GetResponseHeaders())
	addFields(err.Meta(), d.GetResponseTrailers())
	return nil, err
}
