package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// http2Checks is a connection that checks share, one after the other.
type http2Checks struct {
	*http2.ClientConn
	run sync.WaitGroup
}

func newHTTP2Checks(conn stream.Stream, cfg *http2.Config) *http2Checks {
	c := &http2Checks{ClientConn: http2.NewClient(conn, cfg)}
	c.run.Go(func() {
		defer panics.Contain(panics.HTTP2Reader, nil, c.Close)
		_ = c.Run() // its streams tell the check
	})
	return c
}

// end closes the connection; nothing of it goes on.
func (c *http2Checks) end() {
	c.Close()
	c.run.Wait()
}

// callHTTP2 sends a request with its body and reads the answer, all but keep bytes of
// whose body are dropped, until ctx ends or the body is longer than limit.
func callHTTP2(ctx context.Context, c *http2.ClientConn, req *message.Request, body []byte, keep, limit int) (*Answer, error) {
	a := &Answer{}
	s, err := c.Open(req, len(body) == 0)
	if err != nil {
		return a, err
	}
	defer s.Close()
	stop := interruptWith(ctx, s.Interrupt)
	defer stop()
	if len(body) > 0 {
		err = s.WriteData(body, true)
	}
	if err == nil {
		err = s.Flush()
	}
	if err != nil {
		return a, err
	}
	for end := false; !end; {
		if end, err = s.ReadHead(&a.Head); err != nil {
			return a, err
		}
		if a.Head.Status >= 200 {
			break
		}
	}
	for total, last := 0, a.Head.Body == nil; !last; {
		var chunk []byte
		if chunk, last, err = s.Next(); err != nil {
			return a, err
		}
		if total += len(chunk); total > limit {
			return a, errLongBody
		}
		a.Body = append(a.Body, chunk[:min(len(chunk), keep-len(a.Body))]...)
	}
	if f := s.Trailers(); f != nil {
		a.Trailers = &message.Fields{}
		a.Trailers.CopyFrom(f)
	}
	return a, nil
}

// checkHTTP2 is checkHTTP over HTTP/2.
func (k *checker) checkHTTP2(ctx context.Context) (v verdict, reusable bool) {
	c := k.cfg.HTTP
	var req message.Request
	k.request(&req, message.HTTP2)
	a, err := callHTTP2(ctx, k.http2.ClientConn, &req, c.Body, c.keep(), anyLength)
	if errors.Is(err, http2.ErrUnwritable) {
		return failed(fmt.Errorf("host %q, path %q: %w; set http_health_check.host", req.Authority, req.Path, err)), true
	}
	if err != nil {
		return unanswered(err), k.http2.Usable()
	}
	return c.judge(&a.Head, a.Body), k.http2.Usable()
}

// The numbers of grpc.health.v1.HealthCheckResponse.ServingStatus and of gRPC's
// status codes that mean well.
const (
	grpcServing = 1
	grpcOK      = "0"
)

// checkGRPC calls grpc.health.v1.Health/Check.
func (k *checker) checkGRPC(ctx context.Context) (v verdict, reusable bool) {
	c := k.cfg.GRPC
	var req message.Request
	req.Method, req.Path, req.Scheme = "POST", "/grpc.health.v1.Health/Check", k.scheme()
	req.Authority, req.AcceptTrailers = k.hostname(c.Authority), true
	req.Fields.Add("content-type", "application/grpc")
	req.Fields.Add("user-agent", userAgent)
	k.addHeaders(&req.Fields, message.HTTP2)
	req.Fields.SetIDBytes(message.GRPCTimeout, message.AppendGRPCTimeout(nil, k.cfg.Timeout))
	body := grpcFrame(healthRequest(c.Service))
	req.ContentLength = message.UnknownLength
	a, err := callHTTP2(ctx, k.http2.ClientConn, &req, body, maxCheckBody, maxCheckBody)
	if err != nil {
		return unanswered(err), k.http2.Usable()
	}
	if err := judgeGRPC(a); err != nil {
		return failed(err), k.http2.Usable()
	}
	return verdict{}, k.http2.Usable()
}

func judgeGRPC(a *Answer) error {
	if err := a.grpcFailure(); err != nil {
		return err
	}
	status, err := healthResponse(a.Body)
	if err == nil && status != grpcServing {
		err = fmt.Errorf("the service's health is %d, not SERVING (1)", status)
	}
	return err
}

// grpcFrame is a message as gRPC sends it: not compressed, with its length.
func grpcFrame(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
}

// healthRequest is a HealthCheckRequest: field 1 is the service, absent when empty.
func healthRequest(service string) []byte {
	if service == "" {
		return nil
	}
	b := binary.AppendUvarint([]byte{1<<3 | wireBytes}, uint64(len(service)))
	return append(b, service...)
}

// The wire types of protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

var errHealthResponse = errors.New("the answer is not a gRPC health response")

// healthResponse reads the status, field 1, of a framed HealthCheckResponse; fields
// of later versions are passed over.
func healthResponse(b []byte) (status uint64, err error) {
	if len(b) < 5 || b[0] != 0 || uint64(binary.BigEndian.Uint32(b[1:])) != uint64(len(b)-5) {
		return 0, errHealthResponse
	}
	for b = b[5:]; len(b) > 0; {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, errHealthResponse
		}
		b = b[n:]
		size := 0
		switch tag & 7 {
		case wireVarint:
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, errHealthResponse
			}
			if size = n; tag>>3 == 1 {
				status = v
			}
		case wireFixed64:
			size = 8
		case wireFixed32:
			size = 4
		case wireBytes:
			v, n := binary.Uvarint(b)
			if n <= 0 || v > uint64(len(b)) {
				return 0, errHealthResponse
			}
			size = n + int(v)
		default:
			return 0, errHealthResponse
		}
		if size > len(b) {
			return 0, errHealthResponse
		}
		b = b[size:]
	}
	return status, nil
}
