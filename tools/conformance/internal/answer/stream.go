package answer

import (
	"context"
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	conformancev1 "github.com/mig-controller/mig-controller/tools/conformance/gen/connectrpc/conformance/v1"
)

// answers are the messages of one stream. Only one goroutine uses them.
type answers struct {
	call       *call
	definition *conformancev1.StreamResponseDefinition // nil if there is no answer
	begin      func() error                            // sends the headers
	send       func(*conformancev1.ConformancePayload) error
	sent       int
}

// setMetadata sets the headers and the trailers.
func (a *answers) setMetadata(headers, trailers http.Header) {
	addFields(headers, a.definition.GetResponseHeaders())
	addFields(trailers, a.definition.GetResponseTrailers())
}

// left returns how many messages remain to be sent.
func (a *answers) left() int { return len(a.definition.GetResponseData()) - a.sent }

// next sends one more message. There must be one left.
func (a *answers) next(ctx context.Context) error {
	if a.sent == 0 {
		if err := a.begin(); err != nil { // clients may be waiting for the headers
			return err
		}
	}
	payload := &conformancev1.ConformancePayload{Data: a.definition.GetResponseData()[a.sent]}
	switch {
	case a.sent == 0:
		payload.RequestInfo = a.call.info()
	case len(a.call.requests) > 0:
		payload.RequestInfo = &conformancev1.ConformancePayload_RequestInfo{Requests: a.call.requests}
	}
	if err := wait(ctx, a.definition.GetResponseDelayMs()); err != nil {
		return err
	}
	a.sent++
	return a.send(payload)
}

// finish sends the remaining messages. It returns the error that ends the stream.
func (a *answers) finish(ctx context.Context) error {
	for a.left() > 0 {
		if err := a.next(ctx); err != nil {
			return err
		}
		a.call.requests = nil
	}
	switch e := a.definition.GetError(); {
	case e == nil:
		return nil
	case a.sent == 0:
		return toConnect(e, a.call.info())
	default:
		return toConnect(e)
	}
}

// toConnect converts e to a connect.Error, with additional details.
func toConnect(e *conformancev1.Error, more ...proto.Message) *connect.Error {
	err := connect.NewError(connect.Code(e.GetCode()), errors.New(e.GetMessage()))
	details := make([]proto.Message, 0, len(e.GetDetails())+len(more))
	for _, d := range e.GetDetails() {
		details = append(details, d)
	}
	for _, m := range append(details, more...) {
		detail, bad := connect.NewErrorDetail(m)
		if bad != nil {
			return connect.NewError(connect.CodeInternal, bad)
		}
		err.AddDetail(detail)
	}
	return err
}

func withMetadata[T any](msg *T, d *conformancev1.UnaryResponseDefinition) *connect.Response[T] {
	resp := connect.NewResponse(msg)
	addFields(resp.Header(), d.GetResponseHeaders())
	addFields(resp.Trailer(), d.GetResponseTrailers())
	return resp
}

func fields(from map[string][]string) []*conformancev1.Header {
	all := make([]*conformancev1.Header, 0, len(from))
	for name, values := range from {
		all = append(all, &conformancev1.Header{Name: name, Value: values})
	}
	return all
}

func addFields(to http.Header, from []*conformancev1.Header) {
	for _, h := range from {
		for _, value := range h.GetValue() {
			to.Add(h.GetName(), value)
		}
	}
}

// wait returns after a delay, or with the error of ctx when that ends.
func wait(ctx context.Context, ms uint32) error {
	if ms == 0 {
		return nil
	}
	timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
