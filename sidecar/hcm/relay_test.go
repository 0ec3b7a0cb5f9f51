package hcm

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestHeadNotSent: what is told of a response whose head the client did not get. Only one
// that may not be sent is an answer of ours, and the host's fault.
func TestHeadNotSent(t *testing.T) {
	b := newBed(t, "127.0.0.1:1").start()
	cl := b.clusters.Get("origin")
	gone := errors.New("the stream is over")
	for _, tc := range []struct {
		name    string
		err     error
		cause   uint32
		over    bool // the longest duration
		status  int
		flags   telemetry.Flags
		details string
	}{
		{"it may not be sent", http2.ErrUnwritable, causeNone, false, 502, telemetry.FlagUpstreamProtocolError, "unwritable_response"},
		{"the client left", gone, causeNone, false, 200, telemetry.FlagDownstreamTermination, "downstream_remote_disconnect"},
		{"the route's timeout", os.ErrDeadlineExceeded, causeHard, false, 200, telemetry.FlagUpstreamRequestTimeout, "response_timeout"},
		{"the longest duration", os.ErrDeadlineExceeded, causeHard, true, 200, telemetry.FlagDurationTimeout, "max_duration_timeout"},
		{"the idle timeout", os.ErrDeadlineExceeded, causeIdle, false, 200, telemetry.FlagStreamIdleTimeout, "stream_idle_timeout"},
	} {
		for what, fails := range map[string]func(*exchange, error){"head": (*exchange).headFailed, "body": (*exchange).clientFailed} {
			if what == "body" && tc.status == 502 {
				continue
			}
			t.Run(tc.name+", "+what, func(t *testing.T) {
				x := besides(b)
				defer x.leave()
				left := 0
				host, err := cl.PickFor(&x.pick)
				if err != nil || !cl.StartRequestAt(x.priority(), x.d.Shard) {
					t.Fatal("no host")
				}
				host.Begin()
				x.cluster, x.attempt.host, x.attempt.up, x.attempt.counted = cl, host, ending{left: &left}, everywhere
				x.deadline, x.lifeEnd, x.status, x.resp.Status = monotonic(), noDeadline, 200, 200
				if tc.over {
					x.lifeEnd = x.deadline
				}
				x.attempt.until, x.attempt.tryBy = x.deadline, noDeadline
				x.dog.cause.Store(tc.cause)
				fails(x, tc.err)
				if x.status != tc.status || x.flags != tc.flags || x.details != tc.details {
					t.Errorf("%d %v %q", x.status, x.flags, x.details)
				}
				if what == "body" {
					x.endUpstream(false)
				}
				if left != 1 {
					t.Errorf("the upstream was left %d times", left)
				}
			})
		}
	}
	b.atRest()
}

// TestResetAtTheAnswer: clients of HTTP/2 that reset their stream just when the answer
// comes are told of as such, and no host is blamed for them.
func TestResetAtTheAnswer(t *testing.T) {
	const streams = 400
	b := newBed(t, httpOrigin(t, echo)).start()
	var cc *http2.ClientConn
	for i := range streams {
		if i%40 == 0 {
			cc = b.http2Dial()
		}
		s, err := cc.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: "/x"}, true)
		if err != nil {
			t.Fatal(i, err)
		}
		_ = s.Flush()
		time.Sleep(time.Duration(rand.IntN(400)) * time.Microsecond)
		s.Close()
	}
	b.eventually("no request is under way", func() bool { return b.clusters.Get("origin").Stats()[0].Active == 0 })
	data, _ := os.ReadFile(b.logPath)
	for _, line := range strings.Split(string(data), "\n") {
		if strings.Contains(line, " 502 ") {
			t.Fatalf("the access log says %q", line)
		}
	}
}

// TestResponseHeadLimits: what a cluster bounds of its hosts' heads, in both versions.
func TestResponseHeadLimits(t *testing.T) {
	for version := 1; version <= 2; version++ {
		for _, tc := range []struct {
			name           string
			fields, kb     int
			sent, valueLen int
			want           int
		}{
			{"few fields", 20, 0, 10, 1, 200},
			{"too many fields", 20, 0, 20, 1, 502},
			{"more than by default", 200, 0, 150, 1, 200},
			{"a short head", 0, 4, 1, 1 << 10, 200},
			{"a long head", 0, 4, 1, 5 << 10, 502},
			{"longer than by default", 0, 100, 1, 70 << 10, 200},
		} {
			b := newBed(t, versionedOrigin(t, version, func(w http.ResponseWriter, _ *http.Request) {
				for i := range tc.sent {
					w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("v", tc.valueLen))
				}
			}))
			cfg := *b.clusters.Get("origin").Config()
			cfg.HTTP.MaxResponseHeaders, cfg.HTTP.MaxResponseHeaderKB = tc.fields, tc.kb
			if version == 2 {
				cfg.HTTP.Protocol = cluster.SpeakHTTP2
			}
			if err := b.clusters.Update(&cfg); err != nil {
				t.Fatal(err)
			}
			b.start()
			if resp, _ := b.dial().do(simpleGet); resp.StatusCode != tc.want {
				t.Errorf("HTTP/%d, %s: %d, want %d", version, tc.name, resp.StatusCode, tc.want)
			}
		}
	}
}

// TestCutBodyUntilClose: a client that reads until the connection ends is not to take a
// body that was cut for a whole one, over TLS neither.
func TestCutBodyUntilClose(t *testing.T) {
	for _, secure := range []bool{false, true} {
		cut := make(chan struct{})
		b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			<-cut
		}))
		b.cfg.AcceptHTTP10 = true
		if secure {
			b.tls = &tls.Config{Certificates: []tls.Certificate{certificate(t, apiID)}}
		}
		b.start()
		var nc net.Conn
		var err error
		if nc, err = net.Dial("tcp", b.addr); err == nil && secure {
			nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
		}
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, _ = io.WriteString(nc, "GET / HTTP/1.0\r\nHost: h\r\n\r\n")
		r := bufio.NewReader(nc)
		for line := ""; line != "\r\n"; {
			if line, err = r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(r, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		close(cut)
		if rest, err := io.ReadAll(r); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("TLS %v: %q %v", secure, rest, err)
		}
	}
}
