package workloadapi

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	workloadv1 "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
)

// usage counts what each user holds, so that one cannot keep others out.
type usage struct {
	limits Limits
	open   func(int) // told of each change of connections, in order

	mu          sync.Mutex
	connections int
	users       map[uint32]*held
	opened      map[uint32]*rate.Limiter // of discovery streams
}

// What one user may open of discovery streams is less than half of what the control plane admits of
// a host, whose other users it would keep away. An Envoy opens one, and another when that ends.
const (
	opensPerSecond = 10
	openBurst      = 100
	// maxOpened is from how many users on those are forgotten that have been quiet.
	maxOpened = 1000
)

// discover takes one of the discovery streams that a user may open.
func (u *usage) discover(uid uint32, now time.Time) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	l, ok := u.opened[uid]
	if !ok {
		if u.opened == nil {
			u.opened = map[uint32]*rate.Limiter{}
		}
		if len(u.opened) >= maxOpened {
			maps.DeleteFunc(u.opened, func(_ uint32, l *rate.Limiter) bool { return l.TokensAt(now) >= openBurst })
		}
		l = rate.NewLimiter(opensPerSecond, openBurst)
		u.opened[uid] = l
	}
	if !l.AllowN(now, 1) {
		return status.Errorf(codes.ResourceExhausted, "user %d opens more than %d discovery streams a second: back off", uid, opensPerSecond)
	}
	return nil
}

type held struct{ connections, streams int }

func newUsage(l Limits, open func(int)) *usage {
	return &usage{limits: l, open: open, users: map[uint32]*held{}}
}

// connection counts one, until the function it returns is called.
func (u *usage) connection(uid uint32) (func(), error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	h := u.of(uid)
	switch {
	case u.connections >= u.limits.Connections:
		u.settle(uid)
		return nil, fmt.Errorf("there are %d connections already, which is the limit", u.connections)
	case h.connections >= u.limits.ConnectionsPerUser:
		return nil, fmt.Errorf("user %d has %d connections already, which is the limit", uid, h.connections)
	}
	u.connections++
	h.connections++
	u.open(u.connections)
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.connections--
		h.connections--
		u.open(u.connections)
		u.settle(uid)
	}, nil
}

// stream counts one call, until the function it returns is called.
func (u *usage) stream(uid uint32) (func(), error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	h := u.of(uid)
	if h.streams >= u.limits.StreamsPerUser {
		return nil, status.Errorf(codes.ResourceExhausted, "user %d has %d calls under way, which is the limit", uid, h.streams)
	}
	h.streams++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		h.streams--
		u.settle(uid)
	}, nil
}

func (u *usage) of(uid uint32) *held {
	if u.users[uid] == nil {
		u.users[uid] = &held{}
	}
	return u.users[uid]
}

// settle forgets a user who holds nothing.
func (u *usage) settle(uid uint32) {
	if h := u.users[uid]; h != nil && *h == (held{}) {
		delete(u.users, uid)
	}
}

// admit is what every call must pass, whatever service it is of.
func (s *Server) admit(ctx context.Context, method string) (func(), error) {
	c, ok := CallerFromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "the caller is not known")
	}
	if strings.HasPrefix(method, workloadMethods) {
		if err := checkHeader(ctx); err != nil {
			return nil, err
		}
	}
	if strings.HasPrefix(method, discoveryMethods) {
		if err := s.use.discover(c.UID, time.Now()); err != nil {
			return nil, err
		}
	}
	return s.use.stream(c.UID)
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (reply any, err error) {
	defer func() { s.cfg.Observer.Ended(info.FullMethod, status.Code(err).String()) }()
	done, err := s.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer done()
	return next(ctx, req)
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() { s.cfg.Observer.Ended(info.FullMethod, status.Code(err).String()) }()
	done, err := s.admit(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	defer done()
	return next(srv, ss)
}

// discoveryMethods begin the name of each method of aggregated discovery, which is relayed to the
// control plane.
const discoveryMethods = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"

// workloadMethods begin the name of each method of the Workload API.
var workloadMethods = "/" + workloadv1.SpiffeWorkloadAPI_ServiceDesc.ServiceName + "/"

// headerName and its value keep a caller that can be made to send requests, but
// not headers of its choice, from using the API (SPIFFE Workload API, section
// 4.4). The value is compared as written.
const headerName, headerValue = "workload.spiffe.io", "true"

func checkHeader(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(headerName); len(v) != 1 || v[0] != headerValue {
		return status.Errorf(codes.InvalidArgument, "the metadata %q: %q is missing, which each call of the SPIFFE Workload API carries", headerName, headerValue)
	}
	return nil
}
