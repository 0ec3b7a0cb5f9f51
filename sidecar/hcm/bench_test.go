package hcm

import (
	"bufio"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	bodybuffer "github.com/hauberk-mesh/hauberk/sidecar/filter/buffer"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/fault"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/ratelimit"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

const benchRequest = "GET /api/v1/items?id=42 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n" +
	"Accept-Encoding: gzip, deflate\r\nX-Request-Id: 4b9b3b1e-6a1c-4a6f-9f3e-0b1f0f6f3c11\r\nCookie: session=abcdef0123456789\r\n" +
	"Authorization: Bearer abcdefghijklmnopqrstuvwxyz\r\nX-Custom: value\r\n\r\n"

// benchOrigin answers every request with 1 KB, without parsing it.
func benchOrigin(t testing.TB) string {
	body := make([]byte, 1024)
	for i := range body {
		body[i] = 'x'
	}
	answer := append([]byte("HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n"), body...)
	return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil || n == 0 {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
}

// roundTrip sends one request and reads the 1 KB answer without allocating.
func roundTrip(c net.Conn, req, buf []byte) (int, error) {
	if _, err := c.Write(req); err != nil {
		return 0, err
	}
	n := 0
	for {
		k, err := c.Read(buf[n:])
		if err != nil {
			return n, err
		}
		n += k
		if n > 1024 && buf[n-1] == 'x' && headAndBody(buf[:n]) {
			return n, nil
		}
	}
}

// BenchmarkPost is a small body that comes with the head, and one that follows it.
func BenchmarkPost(b *testing.B) {
	const body = `{"name":"value"}`
	head := strings.Replace(benchRequest, "GET", "POST", 1)
	head = head[:len(head)-2] + "Content-Length: 16\r\n\r\n"
	for name, parts := range map[string][]string{"together": {head + body}, "apart": {head, body}} {
		b.Run(name, func(b *testing.B) {
			origin := rawOrigin(b, func(_ int, c net.Conn, r *bufio.Reader) {
				for {
					if _, err := r.ReadSlice('}'); err != nil {
						return
					}
					if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")); err != nil {
						return
					}
				}
			})
			c, err := net.Dial("tcp", quiet(newBed(b, origin)).start().addr)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			buf := make([]byte, 4096)
			b.ReportAllocs()
			before := cpu()
			for b.Loop() {
				for _, p := range parts {
					if _, err := c.Write([]byte(p)); err != nil {
						b.Fatal(err)
					}
				}
				for n := 0; n < 2 || string(buf[n-2:n]) != "ok"; {
					k, err := c.Read(buf[n:])
					if err != nil {
						b.Fatal(err)
					}
					n += k
				}
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

func headAndBody(b []byte) bool {
	for i := 0; i+3 < len(b); i++ {
		if b[i] == '\r' && b[i+1] == '\n' && b[i+2] == '\r' && b[i+3] == '\n' {
			return len(b)-i-4 == 1024
		}
	}
	return false
}

func quiet(b *bed) *bed {
	b.cfg.AccessLog = nil
	return b
}

// BenchmarkFilters is what rewrites, mutations and a chain of filters add.
func BenchmarkFilters(b *testing.B) {
	x := quiet(newBed(b, benchOrigin(b)))
	x.everything()
	bench(b, x.start().addr, 64)
}

func BenchmarkKeepAlive(b *testing.B) {
	for _, conns := range []int{1, 64} {
		b.Run(map[int]string{1: "c=1", 64: "c=64"}[conns], func(b *testing.B) {
			bench(b, quiet(newBed(b, benchOrigin(b))).start().addr, conns)
		})
	}
	b.Run("logged", func(b *testing.B) { bench(b, newBed(b, benchOrigin(b)).start().addr, 64) })
	b.Run("traced", func(b *testing.B) {
		x := quiet(newBed(b, benchOrigin(b)))
		x.everyTrace()
		bench(b, x.start().addr, 64)
	})
}

// BenchmarkDirect is the same without us: what the client and the origin cost.
func BenchmarkDirect(b *testing.B) { bench(b, benchOrigin(b), 64) }

func bench(b *testing.B, addr string, conns int) {
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	for range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		wg.Go(func() {
			req, buf := []byte(benchRequest), make([]byte, 4096)
			for left.Add(-1) >= 0 {
				if _, err := roundTrip(c, req, buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// everything has requests pass a rewrite, header mutations of all levels and filters
// that find nothing to do.
func (b *bed) everything() {
	add := &route.HeaderMutations{
		RequestAdd:  []route.HeaderAdd{{Name: "X-A", Value: "1", Action: route.OverwriteIfExistsOrAdd}, {Name: "X-B", Value: "%REQ(:path)%"}},
		ResponseAdd: []route.HeaderAdd{{Name: "X-A", Value: "1"}}, RequestRemove: []string{"x-custom"},
	}
	b.cfg.Routes.Headers, b.vhost().Headers, b.route().Headers = add, add, add
	b.vhost().AttemptCountInRequest = true
	b.route().Forward.Rewrite, b.route().Forward.AppendForwardedHost = &route.Rewrite{Prefix: "/v2/", Host: "other"}, true
	b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, PerTryTimeout: time.Second}
	b.filter("fault", &fault.Config{Abort: &fault.Abort{Status: 503}})
	b.filter("limit", &ratelimit.Config{
		Bucket: &tokenbucket.Spec{Max: 1 << 30, PerFill: 1, Interval: time.Second}, Enabled: route.All, Enforced: route.All,
	})
	b.filter("mutate", addHeader("me"))
	b.filter("cors", CORSFilter{})
	b.allowing("host", "api.example.com")
	b.filter("buffer", &bodybuffer.Config{MaxBytes: 1 << 20})
	b.route().Filters = override("mutate", addHeader("route"))
}

// everyTrace samples every request, and keeps its spans to itself.
func (b *bed) everyTrace() {
	b.cfg.GenerateRequestID = true
	b.trace(&tracing.Config{Sampling: tracing.Sampling{Random: tracing.Percent(100), Overall: tracing.Percent(100)}, SpawnUpstream: true})
}

// TestNoAllocations holds the promise that a request on a kept-alive connection
// allocates nothing, with every feature of the mesh's path on.
func TestNoAllocations(t *testing.T) {
	t.Run("plain", func(t *testing.T) { noAllocations(t, func(*bed) {}) })
	t.Run("filters", func(t *testing.T) { noAllocations(t, (*bed).everything) })
	t.Run("tracing, sampled", func(t *testing.T) { noAllocations(t, (*bed).everyTrace) })
	t.Run("tracing, not sampled", func(t *testing.T) {
		noAllocations(t, func(b *bed) {
			b.trace(&tracing.Config{Sampling: tracing.Sampling{Overall: tracing.Percent(100)}, Verbose: true, SpawnUpstream: true})
		})
	})
}

func noAllocations(t *testing.T, prepare func(*bed)) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b := newBed(t, benchOrigin(t))
	b.cfg.GenerateRequestID = true
	b.cfg.UseRemoteAddress = true
	b.cfg.NormalizePath = true
	prepare(b)
	b.start()
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 4096)
	req := []byte(benchRequest)
	for range 200 {
		if _, err := roundTrip(c, req, buf); err != nil {
			t.Fatal(err)
		}
	}
	const n = 2000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		if _, err := roundTrip(c, req, buf); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	// The access log's writer and the once-a-second date are not per request.
	if per := float64(after.Mallocs-before.Mallocs) / n; per > 0.05 {
		t.Errorf("%.3f allocations a request", per)
	}
}
