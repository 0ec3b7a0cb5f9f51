package hcm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// trace configures tracing without a collector.
func (b *bed) trace(c *tracing.Config) {
	ts := tracing.NewTracers(tracing.Options{Clusters: b.clusters, Metrics: b.metrics})
	b.t.Cleanup(ts.Close)
	b.options.Tracers, b.cfg.Tracing = ts, c
}

// TestMoments: what an access log says of time is in the order in which it happened.
func TestMoments(t *testing.T) {
	var format strings.Builder
	words := []string{"DS_RX_END", "US_CX_BEG", "US_CX_END", "US_TX_BEG", "US_TX_END", "US_RX_BEG", "US_RX_BODY_BEG", "US_RX_END", "DS_TX_BEG", "DS_TX_END"}
	for _, w := range words {
		format.WriteString("%COMMON_DURATION(DS_RX_BEG:" + w + ":ns)% ")
	}
	format.WriteString("| %REQUEST_DURATION% %REQUEST_TX_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION% %UPSTREAM_CONNECTION_POOL_READY_DURATION% %COMMON_DURATION(US_CX_BEG:US_HS_END:ns)%\n")
	for _, tc := range []struct{ name, request string }{
		{"whole", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"small body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"},
		{"stream", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("content-length", "4")
				_, _ = io.WriteString(w, "he")
				_ = http.NewResponseController(w).Flush()
				_, _ = io.WriteString(w, "re")
			}))
			b.cfg.AccessLog[0].Format = format.String()
			c := b.start().dial()
			c.send(tc.request)
			if tc.name == "stream" {
				c.send("2\r\nhi\r\n")
				c.send("0\r\n\r\n")
			}
			if resp, body := c.answer("POST"); resp.StatusCode != 200 || body != "here" {
				t.Fatal(resp.StatusCode, body)
			}
			line := b.logged(1)[0]
			first, rest, _ := strings.Cut(line, "| ")
			at := map[string]int{}
			for i, f := range strings.Fields(first) {
				n, err := strconv.Atoi(f)
				if err != nil || n < 0 || n > int(10*time.Second) {
					t.Fatalf("%s is %q in %s", words[i], f, line)
				}
				at[words[i]] = n
			}
			for _, order := range [][]string{
				{"US_CX_BEG", "US_CX_END", "US_TX_BEG", "US_RX_BEG", "US_RX_BODY_BEG", "US_RX_END", "DS_TX_END"},
				{"US_TX_BEG", "US_TX_END", "DS_TX_END"}, {"DS_RX_END", "US_TX_END"}, {"US_RX_BEG", "DS_TX_BEG", "DS_TX_END"},
			} {
				for i := 1; i < len(order); i++ {
					if at[order[i-1]] > at[order[i]] {
						t.Errorf("%s came after %s: %s", order[i-1], order[i], first)
					}
				}
			}
			if f := strings.Fields(rest); len(f) != 6 || strings.Contains(strings.Join(f[:5], " "), "-") || f[5] != "-" {
				t.Error(rest)
			}
		})
	}
}

// TestConnectionMoments: a connection began before its request, and is over where its client has left
// without an answer.
func TestConnectionMoments(t *testing.T) {
	asked := make(chan struct{})
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		close(asked)
		_, _ = io.Copy(io.Discard, c)
	}))
	b.cfg.AccessLog[0].Format = "%COMMON_DURATION(DS_CX_BEG:DS_RX_BEG:ns)% %COMMON_DURATION(DS_RX_BEG:DS_CX_END:ns)%\n"
	b.start()
	c := b.dial()
	c.send(simpleGet)
	<-asked
	_ = c.Close()
	var before, after int
	if n, err := fmt.Sscan(b.logged(1)[0], &before, &after); n != 2 || before <= 0 || after <= 0 {
		t.Error(b.logged(1)[0], err)
	}
	answered := newBed(t, httpOrigin(t, echo))
	answered.cfg.AccessLog[0].Format = b.cfg.AccessLog[0].Format
	answered.start().dial().do(simpleGet)
	if line := answered.logged(1)[0]; strings.HasPrefix(line, "-") || !strings.HasSuffix(line, " -") {
		t.Error(line)
	}
}

// TestBodyMoment: a body begins with its first piece, whoever passes it on. The moment is
// noted once that is passed on, which on a busy host takes its time.
func TestBodyMoment(t *testing.T) {
	bridges(t, func(t *testing.T, down, up int) {
		relayed, begun := make(chan struct{}), make(chan struct{})
		b := versionedBed(t, down, up, func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			<-relayed // the head, before there is a body
			time.Sleep(100 * time.Millisecond)
			_, _ = io.WriteString(w, "he")
			w.(http.Flusher).Flush()
			<-begun
			time.Sleep(100 * time.Millisecond)
			_, _ = io.WriteString(w, "re")
		})
		b.cfg.AccessLog[0].Format = "%COMMON_DURATION(US_RX_BEG:US_RX_BODY_BEG:ms)% %COMMON_DURATION(US_RX_BODY_BEG:US_RX_END:ms)%\n"
		b.start()
		resp, err := b.httpClient(down).Get("http://" + b.addr + "/")
		close(relayed)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadFull(resp.Body, make([]byte, 2))
		close(begun)
		rest, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		var before, after int
		if n, _ := fmt.Sscan(b.logged(1)[0], &before, &after); err != nil || string(rest) != "re" || n != 2 || before < 50 || after < 50 {
			t.Errorf("%v, %q, the body began %d ms after the head and %d ms before its end", err, rest, before, after)
		}
	})
}

// TestRecordSaysMore: what is known of the upstream, of trailers and of the destination.
func TestRecordSaysMore(t *testing.T) {
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, _, err := readRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\ngrpc-status: 5\r\ngrpc-message: no\r\n\r\n")
	}))
	b.cfg.AccessLog[0].Format = "%UPSTREAM_PROTOCOL% %TRAILER(GRPC-MESSAGE)% %GRPC_STATUS% %RESPONSE_TRAILERS_BYTES% %UPSTREAM_HOSTS_ATTEMPTED% %UPSTREAM_REMOTE_PORT% " +
		"%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_LOCAL_ADDRESS% %PATH(NQ)% %QUERY_PARAM(b)% %REQUEST_HEADERS_BYTES%\n"
	b.facts.Destination = netip.MustParseAddrPort("192.0.2.1:80")
	b.start().dial().do("POST /a?b=c HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
	f := strings.Fields(b.logged(1)[0])
	host := f[4]
	want := fmt.Sprintf("HTTP/1.1 no NotFound 26 %s %s 192.0.2.1:80 %s /a c", host, host[strings.LastIndexByte(host, ':')+1:], b.addr)
	if n, err := strconv.Atoi(f[len(f)-1]); strings.Join(f[:len(f)-1], " ") != want || err != nil || n < 60 {
		t.Errorf("%v, want %s", f, want)
	}
}

// TestCertificateOperators: both sides of a connection tell of the other's certificate.
func TestCertificateOperators(t *testing.T) {
	const format = "SIDE_TLS_GROUP% %SIDE_PEER_CERT_V_END(%Y)% SERIAL%SIDE_PEER_SUBJECT% %SIDE_PEER_CERT%\n"
	front, _, _ := twoHops(t, httpOrigin(t, func(http.ResponseWriter, *http.Request) {}), apiID)
	front.cfg.AccessLog = []telemetry.AccessLogConfig{{Path: front.logPath, Format: strings.NewReplacer("SIDE", "UPSTREAM", "SERIAL", "%UPSTREAM_TLS_CIPHER%,").Replace("%" + format)}}
	front.start()
	if resp, _ := front.dial().do(simpleGet); resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode)
	}
	line := front.logged(1)[0]
	if !strings.HasPrefix(line, "X25519MLKEM768 20") || !strings.Contains(line, " TLS_AES_128_GCM_SHA256,- -----BEGIN%20CERTIFICATE-----") {
		t.Error(line)
	}
}

// TestForcedTraces: x-envoy-force-trace counts from inside only, and nobody is told
// of it who may not ask.
func TestForcedTraces(t *testing.T) {
	for name, internal := range map[string]bool{"inside": true, "outside": false} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("seen", r.Header.Get("traceparent")+" "+r.Header.Get("x-request-id")[14:15]+" "+r.Header.Get("x-envoy-force-trace"))
			}))
			b.cfg.GenerateRequestID, b.cfg.UseRemoteAddress = true, true
			if internal {
				b.cfg.Internal = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			}
			b.trace(&tracing.Config{Sampling: tracing.Sampling{Overall: tracing.Percent(100)}})
			resp, _ := b.start().dial().do("GET / HTTP/1.1\r\nHost: h\r\nX-Envoy-Force-Trace: 1\r\n\r\n")
			seen := resp.Header.Get("seen")
			if want := map[bool]string{true: "-01 a 1", false: "-00 4"}[internal]; !strings.HasSuffix(seen, want) || len(seen) < 55 || (resp.Header.Get("x-request-id") != "") != internal {
				t.Errorf("the origin saw %q, want %q", seen, want)
			}
		})
	}
}

// TestHedgedAndMirroredAreTraced: every sending of a request carries its trace.
func TestHedgedAndMirroredAreTraced(t *testing.T) {
	seen := make(chan string, 10)
	note := func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Get("traceparent") }
	b := newBed(t, httpOrigin(t, note))
	b.cluster("mirror", httpOrigin(t, note))
	b.route().Forward.Mirrors = []route.Mirror{{Cluster: "mirror", Share: route.All}}
	b.trace(&tracing.Config{Sampling: tracing.Sampling{Random: tracing.Percent(100), Overall: tracing.Percent(100)}, SpawnUpstream: true})
	b.cfg.GenerateRequestID = true
	b.start().dial().do(simpleGet)
	a, c := <-seen, <-seen
	if len(a) != 55 || len(c) != 55 || a[:35] != c[:35] || a == c {
		t.Errorf("%q and %q", a, c)
	}
}

// TestAttemptsAreCounted: how long attempts took that were answered, and how those ended
// that were not.
func TestAttemptsAreCounted(t *testing.T) {
	for reason, tc := range map[string]struct {
		failure telemetry.Failure
		serve   func(net.Conn)
		change  func(*route.Route)
	}{
		"timeout":         {telemetry.FailedTimeout, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, func(r *route.Route) { r.Forward.Timeout = 50 * time.Millisecond }},
		"per_try_timeout": {telemetry.FailedTryTimeout, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, func(r *route.Route) { r.Forward.Retry = &route.RetryPolicy{PerTryTimeout: 50 * time.Millisecond} }},
		"termination":     {telemetry.FailedTermination, func(net.Conn) {}, func(*route.Route) {}},
		"protocol_error":  {telemetry.FailedProtocol, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 what\r\n\r\n") }, func(*route.Route) {}},
	} {
		t.Run(reason, bubble(func(t *testing.T) {
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if _, _, err := readRequest(r); err == nil {
					tc.serve(c)
				}
			}))
			tc.change(b.route())
			b.start().dial().do("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
			m := b.metrics.Cluster("origin").Use()
			if n := m.Failures[tc.failure].Value(); n != 1 || m.RequestDuration.Count() != 0 {
				t.Errorf("%d failures, %d durations", n, m.RequestDuration.Count())
			}
		}))
	}
	b := newBed(t, httpOrigin(t, echo)).start()
	b.dial().do(simpleGet)
	b.logged(1)
	if m := b.metrics.Cluster("origin").Use(); m.RequestDuration.Count() != 1 || m.RequestDuration.Seconds() <= 0 {
		t.Errorf("%d durations", m.RequestDuration.Count())
	}
}

// TestEachAttemptIsItsOwn: what a record says of the upstream is of the last attempt
// alone.
func TestEachAttemptIsItsOwn(t *testing.T) {
	const format = "%HAUBERK_RETRIES% %UPSTREAM_PROTOCOL% %UPSTREAM_LOCAL_PORT% %COMMON_DURATION(DS_RX_BEG:US_TX_BEG:ns)% %RESPONSE_DURATION% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n"
	t.Run("answered, then not connected", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _, _ = readRequest(bufio.NewReader(c))
			_ = l.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			_ = c.Close()
		}()
		t.Cleanup(func() { _ = l.Close(); <-over })
		b := newBed(t, l.Addr().String())
		b.cfg.AccessLog[0].Format = format
		b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, BackOffBase: time.Millisecond}
		b.start().dial().do(simpleGet)
		if line := b.logged(1)[0]; !strings.HasPrefix(line, "1 - - - - ") || strings.HasSuffix(line, " -") {
			t.Error(line)
		}
	})
	t.Run("not connected, then answered", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		b := newBed(t, l.Addr().String(), httpOrigin(t, echo))
		b.cfg.AccessLog[0].Format = format
		b.route().Forward.Retry = &route.RetryPolicy{On: route.RetryConnectFailure, NumRetries: 1, BackOffBase: time.Millisecond}
		c := b.start().dial()
		for range 4 {
			c.do(simpleGet)
		}
		again := 0
		for _, line := range b.logged(4) {
			if strings.HasPrefix(line, "1 HTTP/1.1 ") {
				again++
			}
			if !strings.HasSuffix(line, " -") {
				t.Error(line)
			}
		}
		if again == 0 {
			t.Error("no request was tried again")
		}
	})
	t.Run("hedged", func(t *testing.T) {
		var seen atomic.Int32
		b := newBed(t, scripted(t, &seen, "200"))
		b.cfg.AccessLog[0].Format = "%COMMON_DURATION(US_CX_BEG:US_TX_BEG:ns)% %UPSTREAM_CONNECTION_POOL_READY_DURATION% %REQUEST_TX_DURATION% %RESPONSE_TX_DURATION%\n"
		f := b.route().Forward
		f.Hedge = &route.HedgePolicy{OnPerTryTimeout: true}
		f.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, PerTryTimeout: time.Second}
		b.start().dial().do(simpleGet)
		if line := b.logged(1)[0]; strings.Contains(line, "-") {
			t.Error(line)
		}
	})
}

// TestDecorators: a route names the spans of its requests and chooses which are traced.
func TestDecorators(t *testing.T) {
	bothVersions(t, func(t *testing.T, version int) {
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("seen", r.Header.Get("traceparent")+"|"+r.Header.Get("x-envoy-decorator-operation"))
		}))
		b.cfg.GenerateRequestID = true
		b.trace(&tracing.Config{Sampling: tracing.Sampling{Overall: tracing.Percent(100)}})
		b.route().Tracing = &tracing.Route{
			Config:    &tracing.RouteConfig{Sampling: tracing.Sampling{Random: tracing.Percent(100), Overall: tracing.Percent(100)}},
			Decorator: &tracing.Decorator{Operation: "shop", Propagate: true},
		}
		b.start()
		for client, want := range map[string]string{"A: b": "shop", "X-Envoy-Decorator-Operation: theirs": ""} {
			resp, _ := b.ask(version, client)
			if got := resp.Header.Get("x-envoy-decorator-operation"); got != want || !strings.HasSuffix(resp.Header.Get("seen"), "-01|") {
				t.Errorf("%s: the client sees %q, the origin %q", client, got, resp.Header.Get("seen"))
			}
		}
	})
}
