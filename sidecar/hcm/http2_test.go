package hcm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// versionedOrigin serves a handler over HTTP/1 or HTTP/2 without TLS.
func versionedOrigin(t testing.TB, version int, h http.HandlerFunc) string {
	if version == 1 {
		return httpOrigin(t, h)
	}
	l := listen(t)
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}

// httpClient speaks one version to the bed.
func (b *bed) httpClient(version int) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	if version == 1 {
		tr.Protocols.SetHTTP1(true)
	} else {
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	if b.network != nil {
		tr.DialContext = b.network.DialContext
	}
	b.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// versionedBed is a bed between a client of one version and an origin of another.
func versionedBed(t testing.TB, down, up int, h http.HandlerFunc) *bed {
	b := newBed(t, versionedOrigin(t, up, h))
	if up == 2 {
		b.http2Cluster()
	}
	return b
}

// http2Cluster has the cluster "origin" spoken to in HTTP/2.
func (b *bed) http2Cluster() { b.speakHTTP2("origin") }

func (b *bed) speakHTTP2(name string) {
	b.t.Helper()
	cfg := *b.clusters.Get(name).Config()
	cfg.HTTP.Protocol = cluster.SpeakHTTP2
	if err := b.clusters.Update(&cfg); err != nil {
		b.t.Fatal(err)
	}
}

// bridges runs a test for each pair of versions.
func bridges(t *testing.T, test func(t *testing.T, down, up int)) {
	for _, v := range [][2]int{{1, 1}, {1, 2}, {2, 1}, {2, 2}} {
		t.Run(fmt.Sprintf("%d to %d", v[0], v[1]), func(t *testing.T) { test(t, v[0], v[1]) })
	}
}

func TestBridgeMessages(t *testing.T) {
	bridges(t, func(t *testing.T, down, up int) {
		b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil || r.ProtoMajor != up || r.Host != "api.example.com" {
				t.Errorf("%v, HTTP/%d, host %q", err, r.ProtoMajor, r.Host)
			}
			if te := r.Header.Get("Connection"); te != "" && up == 2 {
				t.Errorf("connection: %q", te)
			}
			w.Header().Set("X-Sum", fmt.Sprintf("%x", sha256.Sum256(body)))
			w.Header().Set("X-Method", r.Method+" "+r.RequestURI+" "+r.Header.Get("X-Two")+" "+r.Header.Get("Cookie"))
			switch r.URL.Path {
			case "/none":
				w.WriteHeader(204)
			case "/not-modified":
				w.WriteHeader(304)
			case "/empty":
			default:
				if n := r.URL.Query().Get("length"); n != "" {
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				}
				_, _ = w.Write(body)
			}
		})
		b.start()
		c := b.httpClient(down)
		big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MB
		for _, test := range []struct {
			method, path string
			body         []byte
			chunked      bool
			status       int
		}{
			{"GET", "/get?a=b&c", nil, false, 200},
			{"HEAD", "/head", nil, false, 200},
			{"GET", "/none", nil, false, 204},
			{"GET", "/not-modified", nil, false, 304},
			{"GET", "/empty", nil, false, 200},
			{"POST", "/small", []byte("hello"), false, 200},
			{"POST", "/small?length=1", []byte("hello"), true, 200},
			{"POST", "/no-body", nil, false, 200},
			{"PUT", "/16k", big[:16<<10], false, 200},
			{"PUT", "/big", big, false, 200},
			{"PUT", "/big?length=1", big, true, 200},
		} {
			var body io.Reader
			if test.body != nil {
				body = bytes.NewReader(test.body)
				if test.chunked {
					body = io.MultiReader(body)
				}
			}
			req, _ := http.NewRequest(test.method, "http://"+b.addr+test.path, body)
			req.Host = "api.example.com"
			req.Header["X-Two"] = []string{"one"}
			req.Header["Cookie"] = []string{"a=1; b=2"}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatalf("%s %s: %v", test.method, test.path, err)
			}
			got, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != test.status || resp.ProtoMajor != down {
				t.Fatalf("%s %s: %d over HTTP/%d, %v", test.method, test.path, resp.StatusCode, resp.ProtoMajor, err)
			}
			if want := fmt.Sprintf("%x", sha256.Sum256(test.body)); resp.Header.Get("X-Sum") != want {
				t.Errorf("%s %s: the origin got another body", test.method, test.path)
			}
			if want := test.method + " " + test.path + " one a=1; b=2"; resp.Header.Get("X-Method") != want {
				t.Errorf("%q, want %q", resp.Header.Get("X-Method"), want)
			}
			if test.method != "HEAD" && test.status == 200 && !bytes.Equal(got, test.body) && test.body != nil {
				t.Errorf("%s %s: %d bytes came back", test.method, test.path, len(got))
			}
		}
	})
}

func TestBridgeTrailersAndInterim(t *testing.T) {
	bridges(t, func(t *testing.T, down, up int) {
		b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</x>; rel=preload")
			w.WriteHeader(103)
			_, _ = io.ReadAll(r.Body)
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "body")
			w.(http.Flusher).Flush()
			w.Header().Set("X-Sum", "got "+r.Trailer.Get("X-Req"))
		})
		b.start()
		interim := 0
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if code == 103 && h.Get("Link") != "" {
					interim++
				}
				return nil
			},
		})
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+b.addr+"/", io.MultiReader(strings.NewReader("x")))
		req.Header.Set("TE", "trailers")
		req.Trailer = http.Header{"X-Req": []string{"7"}}
		resp, err := b.httpClient(down).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "body" || resp.Trailer.Get("X-Sum") != "got 7" || interim != 1 {
			t.Errorf("%q %v, trailers %v, %d interim", body, err, resp.Trailer, interim)
		}
	})
}

// TestBridgeBidirectional: bytes flow both ways at once, each as it is sent.
func TestBridgeBidirectional(t *testing.T) {
	bridges(t, func(t *testing.T, down, up int) {
		if down == 1 {
			return // net/http's HTTP/1 client does not read before it has written
		}
		b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			buf := make([]byte, 64)
			for {
				n, err := r.Body.Read(buf)
				_, _ = w.Write(bytes.ToUpper(buf[:n]))
				w.(http.Flusher).Flush()
				if err != nil {
					return
				}
			}
		})
		b.start()
		pr, pw := io.Pipe()
		req, _ := http.NewRequest("POST", "http://"+b.addr+"/", pr)
		resp, err := b.httpClient(down).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4)
		for _, word := range []string{"ping", "pong", "done"} {
			_, _ = io.WriteString(pw, word)
			if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != strings.ToUpper(word) {
				t.Fatalf("%q %v", buf, err)
			}
		}
		_ = pw.Close()
		if _, err := resp.Body.Read(buf); err != io.EOF {
			t.Errorf("%v", err)
		}
	})
}

// TestBridgeCancel: a client that leaves ends the work of the origin, also where nothing
// is armed because there are no timeouts.
func TestBridgeCancel(t *testing.T) {
	t.Run("with timeouts", func(t *testing.T) {
		testCancel(t, func(*route.Forward) {})
	})
	t.Run("without", func(t *testing.T) {
		testCancel(t, func(f *route.Forward) { f.Timeout, f.IdleTimeout = 0, new(time.Duration) })
	})
}

func testCancel(t *testing.T, change func(*route.Forward)) {
	bubbles(t, func(t *testing.T, down, up int) {
		arrived, ended := make(chan struct{}), make(chan struct{})
		b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) {
			close(arrived)
			select {
			case <-r.Context().Done():
				close(ended)
			case <-time.After(10 * time.Second):
			}
		})
		change(b.route().Forward)
		b.start()
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			<-arrived
			cancel()
		}()
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+b.addr+"/", nil)
		if _, err := b.httpClient(down).Do(req); err == nil {
			t.Fatal("an answer")
		}
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			t.Fatal("the origin still works")
		}
		how := " DC downstream_remote_disconnect"
		if down == 2 {
			how = " DR http2.remote_reset" // of the stream, not of the connection
		}
		b.wantLog(how)
	})
}

// TestBridgeTimeout: the route's timeout is answered, and ends the origin's work.
func TestBridgeTimeout(t *testing.T) {
	bubbles(t, func(t *testing.T, down, up int) {
		ended := make(chan struct{})
		b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			close(ended)
		})
		b.route().Forward.Timeout = 50 * time.Millisecond
		b.start()
		resp, err := b.httpClient(down).Get("http://" + b.addr + "/")
		if err != nil || resp.StatusCode != 504 {
			t.Fatal(resp, err)
		}
		_ = resp.Body.Close()
		<-ended
		b.wantLog("504 UT response_timeout")
	})
}

// TestMultiplexing: many requests at once share one connection upstream, and a
// connection that is to go takes no new ones.
func TestMultiplexing(t *testing.T) {
	var conns sync.Map
	var n atomic.Int64
	gate := make(chan struct{})
	b := versionedBed(t, 2, 2, func(w http.ResponseWriter, r *http.Request) {
		if _, seen := conns.LoadOrStore(r.RemoteAddr, true); !seen {
			n.Add(1)
		}
		<-gate
	})
	b.start()
	c := b.httpClient(2)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			resp, err := c.Get("http://" + b.addr + "/")
			if err != nil || resp.StatusCode != 200 {
				t.Error(resp, err)
				return
			}
			_ = resp.Body.Close()
		})
	}
	time.Sleep(50 * time.Millisecond)
	close(gate)
	wg.Wait()
	if n.Load() != 1 {
		t.Errorf("%d connections upstream", n.Load())
	}
	// A client may have its answer a moment before its exchange has ended.
	var hosts []cluster.HostStats
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if hosts = b.clusters.Get("origin").Stats(); hosts[0].Active == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if h := hosts[0]; h.Connections != 1 || h.Active != 0 {
		t.Errorf("%+v", h)
	}
}

// TestHTTP2Drain: a drain lets what runs finish and takes nothing new.
func TestHTTP2Drain(t *testing.T) {
	gate, arrived := make(chan struct{}), make(chan struct{})
	b := versionedBed(t, 2, 1, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-gate
		_, _ = io.WriteString(w, "done")
	})
	b.start()
	c := b.httpClient(2)
	result := make(chan string)
	go func() {
		resp, err := c.Get("http://" + b.addr + "/")
		if err != nil {
			result <- err.Error()
			return
		}
		body, _ := io.ReadAll(resp.Body)
		result <- string(body)
	}()
	<-arrived
	b.mu.Lock()
	d := b.conns[0]
	b.mu.Unlock()
	d.StartDrain()
	close(gate)
	if got := <-result; got != "done" {
		t.Error(got)
	}
}

// TestCodec: what is configured and what the client speaks must agree.
func TestCodec(t *testing.T) {
	for _, test := range []struct {
		codec     Codec
		http1     int
		http2Fine bool
	}{{CodecAuto, 200, true}, {CodecHTTP1, 200, false}, {CodecHTTP2, 0, true}} {
		b := newBed(t, httpOrigin(t, func(http.ResponseWriter, *http.Request) {}))
		b.cfg.Codec = test.codec
		b.start()
		status := 0
		if resp, err := b.httpClient(1).Get("http://" + b.addr + "/"); err == nil {
			status = resp.StatusCode
			_ = resp.Body.Close()
		}
		resp, err := b.httpClient(2).Get("http://" + b.addr + "/")
		if err == nil {
			_ = resp.Body.Close()
		}
		if status != test.http1 || (err == nil) != test.http2Fine {
			t.Errorf("codec %d: HTTP/1 %d, HTTP/2 %v", test.codec, status, err)
		}
	}
	// The preface may come in pieces, and what only begins like it is HTTP/1.
	b := newBed(t, httpOrigin(t, func(http.ResponseWriter, *http.Request) {})).start()
	c := b.dial()
	for _, part := range []string{"PRI * HTT", "P/2.0\r\n\r\nSM\r", "\n\r\n", "\x00\x00\x00\x04\x00\x00\x00\x00\x00"} {
		c.send(part)
		time.Sleep(5 * time.Millisecond)
	}
	frame := make([]byte, 9)
	if _, err := io.ReadFull(c.r, frame); err != nil || frame[3] != 4 {
		t.Errorf("not a SETTINGS frame: %x %v", frame, err)
	}
	c = b.dial()
	c.send("PRI * HT")
	time.Sleep(5 * time.Millisecond)
	if resp, _ := c.do("TP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 400 {
		t.Errorf("%d", resp.StatusCode)
	}
}

// TestStreamsShareWorkers: a goroutine of its own for each stream would grow a stack of
// its own, a fifth of what a small call costs.
func TestStreamsShareWorkers(t *testing.T) {
	b := newBed(t, versionedOrigin(t, 2, func(http.ResponseWriter, *http.Request) {}))
	b.http2Cluster()
	b.start()
	cc := b.http2Dial()
	if err := b.get(cc); err != nil {
		t.Fatal(err)
	}
	stacks := make([]byte, 1<<20)
	b.eventually("a goroutine that waits for the next stream", func() bool {
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("workers.(*Pool).work("))
	})
}
