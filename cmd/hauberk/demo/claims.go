package demo

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"time"
)

// claim is one thing the demo proves. check returns the evidence, or why it does
// not hold; a second error is one of the demo itself.
type claim struct {
	what  string
	check func(context.Context) (evidence string, broken, err error)
}

func (d *demo) prove(ctx context.Context) (failed int, err error) {
	for _, c := range []claim{
		{"a request carries both identities", d.bothIdentities},
		{"gRPC calls share one connection, and each carries both identities", d.gRPC},
		{"plaintext is refused", d.plaintextRefused},
		{"a wrong identity is refused", d.wrongIdentityRefused},
		{"a stranger's certificate is refused", d.strangerRefused},
		{"traffic splits 90 to 10", d.split},
		{"a retry saves a request", d.retry},
	} {
		evidence, broken, err := c.check(ctx)
		if err != nil {
			return failed, fmt.Errorf("%s: %w", c.what, err)
		}
		verdict := "ok    "
		if broken != nil {
			failed++
			verdict, evidence = "FAILED", broken.Error()
		}
		fmt.Fprintf(d.out, "%s  %s\n        %s\n", verdict, c.what, strings.ReplaceAll(evidence, "\n", "\n        "))
	}
	fmt.Fprintln(d.out)
	return failed, nil
}

// get asks web for a path, as a client outside the mesh.
func (d *demo) get(ctx context.Context, path, requestID string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr(d.ports.web)+path, nil)
	if err != nil {
		return 0, "", err
	}
	if requestID != "" {
		req.Header.Set("X-Request-Id", requestID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, strings.TrimSpace(string(b)), err
}

func newID() string { return fmt.Sprintf("demo-%d", time.Now().UnixNano()) }

func (d *demo) bothIdentities(ctx context.Context) (string, error, error) {
	id := newID()
	code, _, err := d.get(ctx, "/answer", id)
	if err != nil {
		return "", nil, err
	}
	if code != 200 {
		return "", fmt.Errorf("web answered %d", code), nil
	}
	mine := func(r record) bool { return r.str("request_id") == id }
	out, err := d.awaitRecord(ctx, "web", mine)
	if err != nil {
		return "", err, nil
	}
	server := "api-v1"
	if strings.HasPrefix(out.str("cluster"), "v2.") {
		server = "api-v2"
	}
	in, err := d.awaitRecord(ctx, server, mine)
	if err != nil {
		return "", err, nil
	}
	src, dst := "spiffe://"+trustDomain+"/ns/default/dc/dc1/svc/web", "spiffe://"+trustDomain+"/ns/default/dc/dc1/svc/api"
	if in.str("src.id") != src || in.str("dst.id") != dst {
		return "", fmt.Errorf("%s saw %q calling %q", server, in.str("src.id"), in.str("dst.id")), nil
	}
	return fmt.Sprintf("%s says: %s\n       called %s (%s %s, %s)", server+"'s sidecar", in.str("src.id"), in.str("dst.id"),
		in.str("method"), in.str("path"), in.str("rule")), nil, nil
}

const quoteRequests = 40

// gRPC has web make calls, which its sidecar sends to the other's on one connection.
func (d *demo) gRPC(ctx context.Context) (string, error, error) {
	id := newID()
	for i := range quoteRequests {
		code, body, err := d.get(ctx, "/quote", fmt.Sprintf("%s-%d", id, i))
		if err != nil {
			return "", nil, err
		}
		if code != 200 {
			return "", fmt.Errorf("call %d got %d %s", i, code, body), nil
		}
	}
	if _, err := d.awaitRecord(ctx, "quotes", func(r record) bool {
		return r.str("request_id") == fmt.Sprintf("%s-%d", id, quoteRequests-1)
	}); err != nil {
		return "", err, nil
	}
	calls, err := readLog(d.accessLog("quotes"), func(r record) bool { return strings.HasPrefix(r.str("request_id"), id+"-") })
	if err != nil {
		return "", nil, err
	}
	src, dst := "spiffe://"+trustDomain+"/ns/default/dc/dc1/svc/web", "spiffe://"+trustDomain+"/ns/default/dc/dc1/svc/quotes"
	conns := map[int]bool{}
	for _, r := range calls {
		if r.str("src.id") != src || r.str("dst.id") != dst || r.str("path") != quoteMethod || r.str("protocol") != "HTTP/2" {
			return "", fmt.Errorf("quotes saw %q calling %q %s by %s", r.str("src.id"), r.str("dst.id"), r.str("path"), r.str("protocol")), nil
		}
		conns[r.num("connection")] = true
	}
	if len(calls) != quoteRequests || len(conns) != 1 {
		return "", fmt.Errorf("quotes' log shows %d of %d calls, on %d connections", len(calls), quoteRequests, len(conns)), nil
	}
	return fmt.Sprintf("quotes' sidecar says: %d calls of %s on one mTLS connection,\n       each from %s\n       to %s", len(calls), quoteMethod, src, dst), nil, nil
}

func (d *demo) plaintextRefused(ctx context.Context) (string, error, error) {
	target := addr(d.ports.v1Mesh)
	if d.breaking == "plaintext" {
		// As if the application were registered without a sidecar before it.
		target = addr(d.ports.apiV1)
	}
	c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", target)
	if err != nil {
		return "", nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", nil, err
	}
	fmt.Fprintf(c, "GET /answer HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")
	b, err := io.ReadAll(io.LimitReader(c, 4096))
	if strings.HasPrefix(string(b), "HTTP/") {
		line, _, _ := strings.Cut(string(b), "\r\n")
		return "", fmt.Errorf("%s answered plaintext: %s", target, line), nil
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "", fmt.Errorf("%s neither answered nor closed within 5 s", target), nil
	}
	// 21 is the content type of a TLS alert (RFC 8446, section 5.1).
	switch {
	case len(b) > 0 && b[0] == 21:
		return fmt.Sprintf("%s answered a plaintext request with a TLS alert and closed", target), nil, nil
	case len(b) == 0:
		return fmt.Sprintf("%s closed a plaintext connection without a byte", target), nil, nil
	}
	return "", fmt.Errorf("%s answered plaintext with %q", target, b), nil
}

func apiSNI() string { return "v1.api.default.dc1.internal." + trustDomain }

// wrongIdentityRefused joins as another service, with a real SVID of this mesh,
// and calls the api, which no intention lets it.
func (d *demo) wrongIdentityRefused(ctx context.Context) (string, error, error) {
	cfg, id, done, err := d.intruder(ctx)
	if err != nil {
		return "", nil, err
	}
	defer done()
	reqID := newID()
	code, err := d.callMesh(ctx, cfg, reqID)
	if err != nil {
		return "", nil, fmt.Errorf("as %s: %w", id, err)
	}
	if code != http.StatusForbidden {
		return "", fmt.Errorf("%s called the api and got %d", id, code), nil
	}
	r, err := d.awaitRecord(ctx, "api-v1", func(r record) bool { return r.str("request_id") == reqID })
	if err != nil {
		return "", err, nil
	}
	if r.str("src.id") != id || r.num("code") != http.StatusForbidden {
		return "", fmt.Errorf("api-v1's log shows src.id %q, code %d", r.str("src.id"), r.num("code")), nil
	}
	return fmt.Sprintf("api-v1's sidecar says: %s got %d, decided by: %s", id, r.num("code"), r.str("rule")), nil, nil
}

// strangerRefused shows a certificate that nobody in the mesh signed. In TLS 1.3
// a client learns of it at its first read.
func (d *demo) strangerRefused(ctx context.Context) (string, error, error) {
	cfg, err := strangerTLS()
	if err != nil {
		return "", nil, err
	}
	code, err := d.callMesh(ctx, cfg, newID())
	if err == nil {
		return "", fmt.Errorf("a certificate of a throw-away CA was let in and got %d", code), nil
	}
	if !strings.Contains(err.Error(), "tls: ") {
		return "", fmt.Errorf("it failed, but not for its certificate: %w", err), nil
	}
	return "the sidecar's TLS says: " + err.Error(), nil, nil
}

// callMesh makes one HTTP/1.1 request to api-v1's mTLS port.
func (d *demo) callMesh(ctx context.Context, cfg *tls.Config, requestID string) (int, error) {
	raw, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", addr(d.ports.v1Mesh))
	if err != nil {
		return 0, err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	c := tls.Client(raw, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return 0, err
	}
	fmt.Fprintf(c, "GET /answer HTTP/1.1\r\nHost: api\r\nX-Request-Id: %s\r\nConnection: close\r\n\r\n", requestID)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

const splitRequests = 400

func (d *demo) split(ctx context.Context) (string, error, error) {
	id := newID()
	for i := range splitRequests {
		code, _, err := d.get(ctx, "/answer", fmt.Sprintf("%s-%d", id, i))
		if err != nil {
			return "", nil, err
		}
		if code != 200 {
			return "", fmt.Errorf("request %d got %d", i, code), nil
		}
	}
	if _, err := d.awaitRecord(ctx, "web", func(r record) bool {
		return r.str("request_id") == fmt.Sprintf("%s-%d", id, splitRequests-1)
	}); err != nil {
		return "", err, nil
	}
	v2, err := readLog(d.accessLog("web"), func(r record) bool {
		return strings.HasPrefix(r.str("request_id"), id) && strings.HasPrefix(r.str("cluster"), "v2.")
	})
	if err != nil {
		return "", nil, err
	}
	// A fair 10 % lands within 4.5 standard deviations in all but 7 of a
	// million runs.
	mean := 0.1 * splitRequests
	bound := 4.5 * math.Sqrt(splitRequests*0.1*0.9)
	if math.Abs(float64(len(v2))-mean) > bound {
		return "", fmt.Errorf("v2 got %d of %d requests, want %.0f give or take %.0f", len(v2), splitRequests, mean, bound), nil
	}
	return fmt.Sprintf("web's access log: v1 %d, v2 %d of %d requests", splitRequests-len(v2), len(v2), splitRequests), nil, nil
}

func (d *demo) retry(ctx context.Context) (string, error, error) {
	id := newID()
	code, body, err := d.get(ctx, "/flaky/"+id, id)
	if err != nil {
		return "", nil, err
	}
	if code != 200 {
		return "", fmt.Errorf("the request failed: %d %s", code, body), nil
	}
	r, err := d.awaitRecord(ctx, "web", func(r record) bool { return r.str("request_id") == id })
	if err != nil {
		return "", err, nil
	}
	if r.num("retries") < 1 {
		return "", errors.New("it succeeded without a retry"), nil
	}
	return fmt.Sprintf("web's access log: %s %s answered %d after %d retry", r.str("method"), r.str("path"), r.num("code"), r.num("retries")), nil, nil
}

// traffic is light, until ctx ends.
func (d *demo) traffic(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// What fails shows in the access logs; the demo only makes it.
			_, _, _ = d.get(ctx, "/answer", "")
		}
	}
}
