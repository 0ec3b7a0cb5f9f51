//go:build e2e

package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The methods of the service that the applications serve.
const (
	unaryMethod  = grpc_testing.TestService_UnaryCall_FullMethodName
	duplexMethod = grpc_testing.TestService_FullDuplexCall_FullMethodName
)

// grpcApp is an application that speaks gRPC: it answers with its id.
type grpcApp struct {
	grpc_testing.UnimplementedTestServiceServer
	id   string
	hold chan struct{} // when set, calls that ask for it wait for it or their end

	mu       sync.Mutex
	arrived  map[string]bool // by request id
	answered map[string]bool
	xfcc     map[string]string // what the sidecar says of the caller
}

func newGRPCApp(id string) *grpcApp {
	return &grpcApp{id: id, arrived: map[string]bool{}, answered: map[string]bool{}, xfcc: map[string]string{}}
}

// serve serves on ln and returns what ends it as a crash would.
func (a *grpcApp) serve(ln net.Listener) (crash func()) {
	g := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(g, a)
	go func() { _ = g.Serve(ln) }()
	return g.Stop
}

func incoming(ctx context.Context, name string) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

func (a *grpcApp) UnaryCall(ctx context.Context, r *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	id := incoming(ctx, "x-request-id")
	a.mu.Lock()
	a.arrived[id] = true
	a.xfcc[id] = incoming(ctx, "x-forwarded-client-cert")
	a.mu.Unlock()
	if r.GetFillUsername() && a.hold != nil {
		select {
		case <-a.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	a.mu.Lock()
	a.answered[id] = true
	a.mu.Unlock()
	return &grpc_testing.SimpleResponse{ServerId: a.id, Payload: r.GetPayload()}, nil
}

// FullDuplexCall echoes, and says in its head who it is.
func (a *grpcApp) FullDuplexCall(s grpc_testing.TestService_FullDuplexCallServer) error {
	if err := s.SendHeader(metadata.Pairs("instance", a.id)); err != nil {
		return err
	}
	for {
		in, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: in.GetPayload()})
		}
		if err != nil {
			return err
		}
	}
}

// rpc is a gRPC client of an upstream, which does not retry.
func (w *workload) rpc(upstream string) grpc_testing.TestServiceClient {
	w.m.t.Helper()
	c, err := grpc.NewClient("passthrough:///"+w.upstreams[upstream], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig())
	if err != nil {
		w.m.t.Fatal(err)
	}
	w.m.t.Cleanup(func() { c.Close() })
	return grpc_testing.NewTestServiceClient(c)
}

func message(n int) *grpc_testing.Payload { return &grpc_testing.Payload{Body: make([]byte, n)} }

// call makes a unary call and returns who answered.
func call(client grpc_testing.TestServiceClient, requestID string, hold bool) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if requestID != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", requestID)
	}
	reply, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: message(1024), FillUsername: hold})
	if err == nil && len(reply.GetPayload().GetBody()) != 1024 {
		err = fmt.Errorf("%d bytes came back", len(reply.GetPayload().GetBody()))
	}
	return reply.GetServerId(), err
}

// duplex is a stream that is held open.
type duplex struct {
	grpc_testing.TestService_FullDuplexCallClient
	instance string
	n        int
}

func openDuplex(ctx context.Context, client grpc_testing.TestServiceClient) (*duplex, error) {
	s, err := client.FullDuplexCall(ctx)
	if err != nil {
		return nil, err
	}
	d := &duplex{TestService_FullDuplexCallClient: s}
	if err := d.beat(); err != nil {
		return nil, err
	}
	md, err := s.Header()
	if err == nil && len(md.Get("instance")) == 1 {
		d.instance = md.Get("instance")[0]
	}
	return d, err
}

// beat sends a message and waits for it to come back.
func (d *duplex) beat() error {
	d.n++
	size := 1 + d.n*37%2048
	if err := d.Send(&grpc_testing.StreamingOutputCallRequest{Payload: message(size)}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	m, err := d.Recv()
	if err == nil && len(m.GetPayload().GetBody()) != size {
		err = fmt.Errorf("%d bytes came back of %d", len(m.GetPayload().GetBody()), size)
	}
	return err
}

// end closes the stream as its client should.
func (d *duplex) end() error {
	if err := d.CloseSend(); err != nil {
		return err
	}
	if _, err := d.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("at its end: %w", err)
	}
	return nil
}

// rpcAnswers waits until a call is answered by the instance, or with the code.
func (w *workload) rpcAnswers(limit time.Duration, client grpc_testing.TestServiceClient, want codes.Code, instance string) time.Duration {
	w.m.t.Helper()
	return w.m.eventually(limit, fmt.Sprintf("%s's call ends with %s %s", w.id, want, instance), func() error {
		who, err := call(client, "", false)
		if status.Code(err) != want || instance != "" && who != instance {
			return fmt.Errorf("got %q, %v", who, err)
		}
		return nil
	})
}

func (m *mesh) protocol(service, protocol string) {
	m.t.Helper()
	m.entry(&consulapi.ServiceConfigEntry{Kind: consulapi.ServiceDefaults, Name: service, Protocol: protocol})
}

func spiffe(service string) string {
	return "spiffe://" + trustDomain + "/ns/default/dc/dc1/svc/" + service
}

// TestIntentionsGRPC: an intention allows methods; a denial is PERMISSION_DENIED to a
// client and names its rule in the log; each call's record names both identities; and a
// deny of all ends the streams that are open.
func TestIntentionsGRPC(t *testing.T) {
	m := newMesh(t)
	m.protocol("rpc", "grpc")
	web := m.register(spec{id: "web-1", service: "web", upstreams: []string{"rpc"}, node: "host-1"})
	job := m.register(spec{id: "job-1", service: "job", upstreams: []string{"rpc"}, node: "host-1"})
	m.sidecarFor("host-1", web, job)
	rpc := m.workload(spec{id: "rpc-1", service: "rpc", grpc: newGRPCApp("rpc-1")})
	client := web.rpc("rpc")
	t.Logf("denied by default: %v", web.rpcAnswers(10*second, client, codes.PermissionDenied, ""))

	allow := func(sources ...*consulapi.SourceIntention) {
		t.Helper()
		m.entry(&consulapi.ServiceIntentionsConfigEntry{Kind: consulapi.ServiceIntentions, Name: "rpc", Sources: sources})
	}
	all := func(name string) *consulapi.SourceIntention {
		return &consulapi.SourceIntention{Name: name, Action: consulapi.IntentionActionAllow}
	}
	allow(&consulapi.SourceIntention{Name: "web", Permissions: []*consulapi.IntentionPermission{
		{Action: consulapi.IntentionActionAllow, HTTP: &consulapi.IntentionHTTPPermission{PathExact: unaryMethod}}}})
	t.Logf("one method allowed: %v", web.rpcAnswers(2*second, client, codes.OK, "rpc-1"))
	if _, err := openDuplex(t.Context(), client); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a method that is not allowed: %v", err)
	}
	m.eventually(2*second, "the log has the denied call", func() error {
		for _, r := range rpc.records(func(r map[string]any) bool { return r["path"] == duplexMethod }) {
			if r["src.id"] != spiffe("web") || r["dst.id"] != spiffe("rpc") || r["rule"] == "" || r["rule"] == nil {
				return fmt.Errorf("%v", r)
			}
			return nil
		}
		return errors.New("no record")
	})

	// Two services behind one sidecar: each has its own connection to the instance, and
	// all of its calls share that.
	allow(all("web"), all("job"))
	theirs := job.rpc("rpc")
	job.rpcAnswers(2*second, theirs, codes.OK, "rpc-1")
	for i := range 20 {
		for name, c := range map[string]grpc_testing.TestServiceClient{"web": client, "job": theirs} {
			if _, err := call(c, fmt.Sprintf("%s-%d", name, i), false); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.eventually(2*second, "the log has every call with its identities", func() error {
		conns := map[string]map[any]bool{"web": {}, "job": {}}
		calls := 0
		for name := range conns {
			for _, r := range rpc.records(func(r map[string]any) bool {
				id, _ := r["request_id"].(string)
				return len(id) > 4 && id[:4] == name+"-"
			}) {
				if r["src.id"] != spiffe(name) || r["dst.id"] != spiffe("rpc") || r["tls"] != "TLSv1.3" {
					return fmt.Errorf("%v", r)
				}
				conns[name][r["connection"]] = true
				calls++
			}
		}
		if calls != 40 || len(conns["web"]) != 1 || len(conns["job"]) != 1 {
			return fmt.Errorf("%d calls on connections %v", calls, conns)
		}
		for c := range conns["web"] {
			if conns["job"][c] {
				return errors.New("both services on one connection")
			}
		}
		return nil
	})

	// A new deny of all ends what is open of the one, and nothing of the other.
	denied, err := openDuplex(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := openDuplex(t.Context(), theirs)
	if err != nil {
		t.Fatal(err)
	}
	allow(all("job"))
	began := time.Now()
	if _, err := denied.Recv(); err == nil {
		t.Error("the denied stream still delivers")
	}
	took := time.Since(began)
	t.Logf("a deny ended the open stream after %v", took)
	if took > second {
		t.Errorf("the stream lived on for %v", took)
	}
	web.rpcAnswers(2*second, client, codes.PermissionDenied, "")
	if err := errors.Join(kept.beat(), kept.end()); err != nil {
		t.Errorf("the other service's stream: %v", err)
	}
	m.eventually(2*second, "the log says what ended the stream", func() error {
		for _, r := range rpc.records(func(r map[string]any) bool { return r["path"] == duplexMethod && r["src.id"] == spiffe("web") }) {
			f, _ := r["flags"].(string)
			if !strings.Contains(f, "PC") {
				continue
			}
			t.Logf("its record: flags %v, rule %v", f, r["rule"])
			if rule, _ := r["rule"].(string); rule == "" || strings.Contains(rule, "(web)") {
				return fmt.Errorf("the rule is %q, which allowed it", rule)
			}
			return nil
		}
		return errors.New("no record with the reason")
	})
}
