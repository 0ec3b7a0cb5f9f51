package listener

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// name makes the name of a request, and the path that leads to one of the clusters.
func (s *stress) name(r *rand.Rand) (pattern, string) {
	n := strconv.FormatInt(s.names.Add(1), 36)
	name := strconv.Itoa(r.IntN(len(stressClusters))) + "-" + n + strings.Repeat("x", r.IntN(20))
	return pattern(name + "|"), "/" + name
}

// size is that of a body: of most, little.
func size(r *rand.Rand) int {
	switch r.IntN(8) {
	case 0:
		return 0
	case 1:
		return r.IntN(400 << 10)
	case 2:
		return r.IntN(40 << 10)
	}
	return r.IntN(2000)
}

func mood(r *rand.Rand) string {
	return []string{"echo", "echo", "echo", "stall", "early", "abort", "503"}[r.IntN(7)]
}

// judge looks at an answer; it is false where the connection is of no more use.
func (s *stress) judge(kind int, p pattern, resp *http.Response, want int) bool {
	defer resp.Body.Close()
	if resp.Header.Get("X-Name") == "" {
		b, err := io.ReadAll(resp.Body)
		if resp.StatusCode < 400 || bytes.IndexByte(b, '|') >= 0 {
			s.t.Errorf("client %d: %d without a name, with %.100q", kind, resp.StatusCode, b)
		}
		return err == nil
	}
	if got := resp.Header.Get("X-Name"); got != string(p) {
		s.t.Errorf("client %d: the head of %q for %q", kind, got, p)
	}
	n, err := p.check(resp.Body)
	switch {
	case foreign(err):
		s.t.Errorf("client %d: %v", kind, err)
	case err != io.EOF:
		return false
	case n != want:
		s.t.Errorf("client %d: %d bytes of %d came as the whole", kind, n, want)
	case resp.Trailer.Get("X-Last") != string(p) && resp.ContentLength < 0:
		s.t.Errorf("client %d: the trailers of %q for %q", kind, resp.Trailer.Get("X-Last"), p)
	default:
		s.whole[kind].Add(1)
	}
	return err == io.EOF
}

// connect opens a connection to a listener.
func (s *stress) connect(name string) (net.Conn, error) {
	c, err := net.Dial("tcp", s.m.Addrs()[name].String())
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if name == "tls" {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		}
	}
	return c, err
}

// speak1 has one connection of HTTP/1, on which it asks, some at a time.
func (s *stress) speak1(r *rand.Rand, kind int, listener string) {
	c, err := s.connect(listener)
	if err != nil {
		return
	}
	defer c.Close()
	br := bufio.NewReader(c)
	for range 1 + r.IntN(8) {
		type asked struct {
			p      pattern
			answer int
		}
		var batch []asked
		var out strings.Builder
		for range 1 + r.IntN(3) {
			p, path := s.name(r)
			a := asked{p, size(r)}
			batch = append(batch, a)
			writeRequest(&out, r, p, path, a.answer)
		}
		text := out.String()
		var wg sync.WaitGroup
		seed := r.Uint64()
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			for small := r.IntN(4) == 0 && len(text) < 2000; len(text) > 0; {
				n := min(len(text), 1+r.IntN(64<<10))
				if small {
					n = 1
				}
				if r.IntN(300) == 0 {
					_ = c.Close()
				}
				if _, err := io.WriteString(c, text[:n]); err != nil {
					return
				}
				text = text[n:]
			}
		})
		for _, a := range batch {
			resp, err := http.ReadResponse(br, nil)
			if err != nil || !s.judge(kind, a.p, resp, a.answer) || resp.Close {
				_ = c.Close()
				wg.Wait()
				return
			}
		}
		wg.Wait()
	}
}

// writeRequest writes a request as HTTP/1 has it.
func writeRequest(out *strings.Builder, r *rand.Rand, p pattern, path string, answer int) {
	n := size(r)
	fmt.Fprintf(out, "POST %s HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\nX-Name: %s\r\nX-Do: %s\r\nX-Size: %d\r\nX-Answer: %d\r\n", path, p, mood(r), n, answer)
	text := p.text(n)
	if r.IntN(2) == 0 {
		fmt.Fprintf(out, "Content-Length: %d\r\n\r\n%s", n, text)
		return
	}
	out.WriteString("Trailer: X-Last\r\nTransfer-Encoding: chunked\r\n\r\n")
	for len(text) > 0 {
		k := min(len(text), 1+r.IntN(20<<10))
		fmt.Fprintf(out, "%x\r\n%s\r\n", k, text[:k])
		text = text[k:]
	}
	fmt.Fprintf(out, "0\r\nX-Last: %s\r\n\r\n", p)
}

// speak2 asks once by a client of HTTP/2, which others use too.
func (s *stress) speak2(r *rand.Rand, client *http.Client, base string) {
	p, path := s.name(r)
	answer, n := size(r), size(r)
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	if r.IntN(10) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(20))*time.Millisecond)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, "POST", base+path, strings.NewReader(p.text(n)))
	if err != nil {
		s.t.Error(err)
		return
	}
	for k, v := range map[string]string{"X-Name": string(p), "X-Do": mood(r), "X-Size": strconv.Itoa(n), "X-Answer": strconv.Itoa(answer), "TE": "trailers"} {
		req.Header.Set(k, v)
	}
	if r.IntN(2) == 0 {
		req.ContentLength = -1
		req.Trailer = http.Header{"X-Last": {string(p)}}
	}
	if resp, err := client.Do(req); err == nil {
		s.judge(2, p, resp, answer)
	}
}
