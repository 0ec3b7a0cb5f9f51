package hcm

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/streamtest"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a connection manager on a loopback socket, with its upstreams.
type bed struct {
	t        testing.TB
	cfg      *Config
	facts    downstream.Facts
	poller   *stream.Poller
	clusters *cluster.Manager
	metrics  *telemetry.Metrics
	logPath  string

	options Options // besides what start makes

	overload *overload.Signals // nil for none
	exempt   bool

	tls   *tls.Config  // of the listener, nil for plaintext
	table *route.Table // instead of inline routes

	change func(*Manager) // the manager before it serves, where set

	wrap func(stream.Stream) stream.Stream // of each connection's stream, where set

	age time.Duration // how long ago connections were accepted, as far as the manager knows

	network *streamtest.Network // of the test's bubble, nil for loopback

	addr  string
	m     *Manager
	mu    sync.Mutex
	conns []*downstream.Conn

	finished chan struct{} // one for each connection that was served to its end
}

const (
	webID = "spiffe://td/ns/default/dc/dc1/svc/web"
	apiID = "spiffe://td/ns/default/dc/dc1/svc/api"
)

func ptr[T any](v T) *T { return &v }

// newBed prepares a bed whose one route leads everything to the cluster "origin".
func newBed(t testing.TB, origin ...string) *bed {
	b := &bed{t: t, network: networkOf(t), metrics: telemetry.NewMetrics(), logPath: t.TempDir() + "/access.log", finished: make(chan struct{}, 16)}
	o := cluster.Options{Metrics: b.metrics}
	if b.network != nil {
		o.Dial = b.network.DialContext
	}
	b.clusters = cluster.NewManager(o)
	b.cfg = &Config{
		ProxyContinue: true, HTTP1: HTTP1{EnableTrailers: true, AllowCustomMethods: true},
		Routes: &route.Config{Name: "r", VirtualHosts: []route.VirtualHost{{
			Name: "all", Domains: []string{"*"}, Routes: []route.Route{{
				Name: "everything", Match: route.Match{Prefix: ptr("/")}, Forward: &route.Forward{Cluster: "origin", Timeout: 5 * time.Second},
			}},
		}}},
		AccessLog: []telemetry.AccessLogConfig{{Path: b.logPath, Format: "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %ROUTE_NAME% %UPSTREAM_HOST% retries=%HAUBERK_RETRIES% rx=%BYTES_RECEIVED% tx=%BYTES_SENT% rule=%HAUBERK_RULE%\n"}},
	}
	b.cluster("origin", origin...)
	return b
}

func (b *bed) route() *route.Route { return &b.cfg.Routes.VirtualHosts[0].Routes[0] }

func endpoints(name string, addrs ...string) *cluster.Assignment {
	a := &cluster.Assignment{Cluster: name, Localities: []cluster.Locality{{}}}
	for _, addr := range addrs {
		host, port, _ := net.SplitHostPort(addr)
		e := cluster.Endpoint{Host: host}
		fmt.Sscan(port, &e.Port)
		a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, e)
	}
	return a
}

func (b *bed) cluster(name string, addrs ...string) {
	b.t.Helper()
	zero := 0.0
	err := b.clusters.Update(&cluster.Config{Name: name, Endpoints: endpoints(name, addrs...), PanicThreshold: &zero, ConnectTimeout: time.Second,
		HTTP: cluster.HTTP{HTTP1: cluster.HTTP1{EnableTrailers: true}}})
	if err != nil {
		b.t.Fatal(err)
	}
}

// start serves; everything ends with the test.
func (b *bed) start() *bed {
	b.t.Helper()
	logs := telemetry.NewLogs(b.metrics)
	o := b.options
	o.Clusters, o.Logs, o.Metrics, o.Routes = b.clusters, logs, b.metrics, func() *route.Table { return b.table }
	m, err := New(b.cfg, o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.m = m
	if b.change != nil {
		b.change(m)
	}
	l := listen(b.t)
	b.addr = l.Addr().String()
	var poller *stream.Poller
	if b.network == nil {
		if poller, err = stream.NewPoller(); err != nil {
			b.t.Fatal(err)
		}
	}
	b.poller = poller
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			var s stream.Stream
			if b.tls != nil {
				t, err := stream.ServerTLS(nc.(stream.Conn), nil, b.tls)
				if err == nil {
					if b.m.NeedsPeerChain() {
						t.KeepPeerChain()
					}
					err = t.Handshake(ctx)
				}
				if err != nil {
					_ = nc.Close()
					continue
				}
				t.SetOwnID(apiID)
				s = t
			} else if s, err = stream.NewSocket(nc.(stream.Conn), nil); err != nil {
				b.t.Error(err)
				return
			}
			if b.wrap != nil {
				s = b.wrap(s)
			}
			f := b.facts
			f.Stream, f.Accepted = s, time.Now().Add(-b.age)
			f.Place = &downstream.Place{Workload: webID, Metrics: b.metrics.Service(telemetry.Inbound, "api"), Overload: b.overload, Exempt: b.exempt}
			f.Peer = authz.NewPeer(s.Info(), f.Destination)
			f.PeerMetrics = f.Metrics.Peer("none")
			b.mu.Lock()
			f.ID = uint64(len(b.conns) + 1)
			d := downstream.New(f, b.m.Policy())
			b.conns = append(b.conns, d)
			b.mu.Unlock()
			d.Attach(&downstream.Server{Handler: m, Context: ctx, Poller: poller}, owner{&wg, b.finished})
			wg.Add(1)
			go d.Serve()
		}
	})
	b.t.Cleanup(func() {
		_ = l.Close()
		cancel()
		b.mu.Lock()
		for _, d := range b.conns {
			_ = d.Stream.Close()
		}
		b.mu.Unlock()
		wg.Wait()
		if poller != nil {
			_ = poller.Close()
		}
		_ = m.Close()
		_ = b.clusters.Close()
		logs.Close()
	})
	return b
}

// owner closes connections when they are finished, as the listener does.
type owner struct {
	wg       *sync.WaitGroup
	finished chan<- struct{}
}

func (o owner) Finished(d *downstream.Conn) {
	_ = d.Stream.Close()
	select {
	case o.finished <- struct{}{}:
	default: // nobody asks
	}
	o.wg.Done()
}

// client is one raw connection to the bed.
type testClient struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (b *bed) dial() *testClient {
	b.t.Helper()
	nc := b.connect()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	b.t.Cleanup(func() { _ = nc.Close() })
	return &testClient{b.t, nc, bufio.NewReader(nc)}
}

func (c *testClient) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one response. The body is read whole.
func (c *testClient) answer(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("reading the response: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("reading the body: %v", err)
	}
	return resp, string(body)
}

// do sends a request and returns the response.
func (c *testClient) do(raw string) (*http.Response, string) {
	c.t.Helper()
	c.send(raw)
	method, _, _ := strings.Cut(raw, " ")
	return c.answer(method)
}

// closed fails unless the server ends the connection.
func (c *testClient) closed() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if b, err := c.r.ReadByte(); err != io.EOF {
		c.t.Fatalf("the connection is still open (byte %q, err %v)", b, err)
	}
}

// logged waits for the access log to hold n lines.
func (b *bed) logged(n int) []string {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		data, _ := os.ReadFile(b.logPath)
		lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		if len(data) > 0 && len(lines) >= n {
			return lines
		}
		time.Sleep(5 * time.Millisecond)
	}
	data, _ := os.ReadFile(b.logPath)
	b.t.Fatalf("the access log has not %d lines:\n%s", n, data)
	return nil
}

// httpOrigin serves a handler and tells its address.
func httpOrigin(t testing.TB, h http.HandlerFunc) string {
	l := listen(t)
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}

// rawOrigin hands each connection to serve; n is its number, from 0.
func rawOrigin(t testing.TB, serve func(n int, c net.Conn, r *bufio.Reader)) string {
	l := listen(t)
	var wg sync.WaitGroup
	var n atomic.Int64
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			i := int(n.Add(1)) - 1
			wg.Go(func() {
				defer c.Close()
				serve(i, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// readRequest reads one request from a raw origin's connection, body included.
func readRequest(r *bufio.Reader) (head string, body string, err error) {
	req, err := http.ReadRequest(r)
	if err != nil {
		return "", "", err
	}
	var h strings.Builder
	_ = req.Header.Write(&h)
	b, err := io.ReadAll(req.Body)
	return req.Method + " " + req.RequestURI + " host=" + req.Host + "\n" + h.String(), string(b), err
}
