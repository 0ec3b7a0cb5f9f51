package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// Answer is a whole response to a Call.
type Answer struct {
	Head message.Response
	// Body is the body, or as much of it as was to be kept.
	Body []byte
	// Trailers are what followed the body, nil for nothing.
	Trailers *message.Fields
}

// grpcFailure is what gRPC says went wrong, nil for nothing.
func (a *Answer) grpcFailure() error {
	if a.Head.Status != 200 {
		return fmt.Errorf("status %d", a.Head.Status)
	}
	f := a.Trailers
	if f == nil {
		f = &a.Head.Fields // a response without a message has only one head
	}
	if code, _ := f.Get("grpc-status"); code != grpcOK {
		text, _ := f.Get("grpc-message")
		return fmt.Errorf("gRPC status %q: %q", code, text)
	}
	return nil
}

// Call sends a request that the process makes itself, with its body, to a host of the
// cluster and reads the answer. It is off the request path: it allocates. The request is
// not tried again. The end of ctx ends it.
func (c *Cluster) Call(ctx context.Context, req *message.Request, body []byte) (*Answer, error) {
	a, _, err := c.call(ctx, req, body, false)
	return a, err
}

// CallGRPC calls a gRPC method with one message and returns the message it answers
// with. The cluster must speak HTTP/2.
func (c *Cluster) CallGRPC(ctx context.Context, req *message.Request, msg []byte) ([]byte, error) {
	req.AcceptTrailers = true
	if end, ok := ctx.Deadline(); ok {
		req.Fields.Set("grpc-timeout", fmt.Sprintf("%dm", max(1, min(time.Until(end).Milliseconds(), 99999999))))
	}
	a, http2, err := c.call(ctx, req, grpcFrame(msg), true)
	switch {
	case err != nil:
		return nil, err
	case !http2:
		return nil, fmt.Errorf("cluster %s speaks HTTP/1; gRPC needs http2_protocol_options", c.name)
	}
	if err := a.grpcFailure(); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.name, err)
	}
	if len(a.Body) < 5 {
		return nil, nil
	}
	if a.Body[0] != 0 || int(binary.BigEndian.Uint32(a.Body[1:])) != len(a.Body)-5 {
		return nil, errors.New("the answer is no single, uncompressed gRPC message")
	}
	return a.Body[5:], nil
}

// call tells too whether HTTP/2 was spoken; with only, nothing is sent otherwise.
func (c *Cluster) call(ctx context.Context, req *message.Request, body []byte, only bool) (a *Answer, http2 bool, err error) {
	h, err := c.PickFor(&PickContext{Request: req})
	if err != nil {
		return nil, false, err
	}
	own := h.cluster
	h.Begin()
	defer h.End()
	conn, err := h.onTerms(&Asker{Request: req, Authority: req.Authority}, func(t *Terms) (*Conn, error) {
		return h.acquireSure(ctx, t, only)
	})
	if err != nil {
		if e, ok := err.(*Error); ok && e.OfHost() {
			h.Report(OutcomeConnect)
		}
		return nil, false, err
	}
	// Until here the request was pending.
	if !own.StartRequest(0) {
		conn.Release()
		return nil, false, &Error{Kind: OverflowRequests, Cluster: own.name, Host: h.key}
	}
	defer own.EndRequest()
	if conn.Info().TLS {
		req.Scheme = "https"
	}
	if req.ContentLength = int64(len(body)); len(body) > 0 {
		req.Body = inMemory{}
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Minute)
		defer cancel()
	}
	switch {
	case conn.HTTP2 != nil:
		a, err = callHTTP2(ctx, conn.HTTP2, req, body, maxCheckBody, maxCheckBody)
		conn.Release()
	case only:
		conn.Release()
		return &Answer{}, false, nil
	default:
		a, err = conn.callHTTP1(ctx, req, body)
	}
	if err != nil {
		switch ctx.Err() {
		case nil:
			h.Report(OutcomeReset)
		case context.DeadlineExceeded:
			h.Report(OutcomeTimeout)
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		own.metrics.Answered(0, 0)
		return nil, conn.HTTP2 != nil, fmt.Errorf("cluster %s host %s: %w", own.name, h.key, err)
	}
	h.ReportJudged(Outcome(a.Head.Status), c.Config().HTTP.Judged(&a.Head))
	own.metrics.Answered(0, a.Head.Status)
	return a, conn.HTTP2 != nil, nil
}

// acquireSure acquires a connection that was looked at: the request is not sent again
// where its peer had closed it.
func (h *Host) acquireSure(ctx context.Context, t *Terms, http2 bool) (*Conn, error) {
	within := func() (context.Context, context.CancelFunc) { return context.WithCancel(ctx) }
	for {
		c, err := h.Acquire(within, "", t, http2, DefaultPriority, monotonic(), 0)
		if err != nil || c.Sure() {
			return c, err
		}
		_ = c.CloseUnused()
	}
}

// callHTTP1 gives the connection back, or ends it.
func (c *Conn) callHTTP1(ctx context.Context, req *message.Request, body []byte) (*Answer, error) {
	o := http1.RequestOptions{Framing: http1.NoBody}
	if len(body) > 0 {
		o.Framing = http1.Length
	}
	out, err := http1.AppendRequest(nil, req, o)
	if err != nil {
		c.Release()
		return nil, err
	}
	stop := interruptWith(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	_, err = c.Write(append(out, body...))
	r := responseReader{conn: c, method: req.Method, limit: maxCheckBody, keep: maxCheckBody}
	if err == nil {
		err = r.read()
	}
	if stop() || err != nil || r.resp.Close {
		_ = c.Close()
	} else {
		c.Release()
	}
	if err != nil {
		return nil, err
	}
	return &Answer{Head: r.resp, Body: r.body}, nil
}

// interruptWith has interrupt called when ctx ends. stop, which is called once, ends that
// and tells whether it was; when it returns no call is under way: what was to be
// interrupted may serve somebody else then.
func interruptWith(ctx context.Context, interrupt func()) (stop func() (interrupted bool)) {
	done := make(chan struct{})
	forget := context.AfterFunc(ctx, func() {
		defer close(done)
		defer panics.Contain(panics.Timer, nil, nil)
		interrupt()
	})
	return func() bool {
		if forget() {
			return false
		}
		<-done
		return true
	}
}

// inMemory stands for a body that is sent from memory.
type inMemory struct{}

func (inMemory) Next() ([]byte, bool, error) { return nil, true, nil }
func (inMemory) Ready() bool                 { return true }
func (inMemory) Trailers() *message.Fields   { return nil }
