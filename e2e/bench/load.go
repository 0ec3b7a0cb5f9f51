package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// request is what every contender is sent: eight headers, no body.
const request = "GET /bench HTTP/1.1\r\nHost: api.bench\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Language: en\r\n" +
	"Cache-Control: no-cache\r\nX-Trace: 0123456789abcdef\r\nX-Tenant: blue\r\nCookie: session=abcdef0123456789\r\n\r\n"

// bodySize of the origin's answer.
const bodySize = 1024

// origin answers every request with the same kilobyte.
type origin struct {
	ln       net.Listener
	requests atomic.Int64
}

func startOrigin() (*origin, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{ln: ln}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go o.serve(c)
		}
	}()
	return o, nil
}

func (o *origin) serve(c net.Conn) {
	defer c.Close()
	answer := []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", bodySize, bytes.Repeat([]byte("x"), bodySize)))
	r := bufio.NewReaderSize(c, 4096)
	for {
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) <= 2 {
				break
			}
		}
		o.requests.Add(1)
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// result is what one run of the load saw.
type result struct {
	requests, failed int64
	took             time.Duration
	latencies        []time.Duration // of the open loop, sorted
	last             error
}

func (r *result) percentile(p float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[min(len(r.latencies)-1, int(p*float64(len(r.latencies))))]
}

// closedLoop keeps n connections busy for a time, after a warm-up.
func closedLoop(addr string, n int, warm, d time.Duration, measure func(begin bool)) (*result, error) {
	var counted, failed atomic.Int64
	var last atomic.Pointer[error]
	var stop atomic.Bool
	var counting atomic.Bool
	var wg sync.WaitGroup
	conns, err := dial(addr, n)
	if err != nil {
		return nil, err
	}
	for _, c := range conns {
		wg.Go(func() {
			defer c.Close()
			for !stop.Load() {
				err := c.exchange()
				switch {
				case err != nil:
					failed.Add(1)
					last.Store(&err)
					return
				case counting.Load():
					counted.Add(1)
				}
			}
		})
	}
	time.Sleep(warm)
	measure(true)
	counting.Store(true)
	began := time.Now()
	time.Sleep(d)
	stop.Store(true)
	took := time.Since(began)
	wg.Wait() // the last answers, which count
	measure(false)
	out := &result{requests: counted.Load(), failed: failed.Load(), took: took}
	if e := last.Load(); e != nil {
		out.last = *e
	}
	return out, nil
}

// openLoop sends at a fixed rate over n connections. A latency counts from when
// the request was due, so that a contender that stalls does not hide it.
func openLoop(addr string, n int, rate float64, d time.Duration) (*result, error) {
	conns, err := dial(addr, n)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	out := &result{}
	var next atomic.Int64
	began := time.Now()
	total := int64(rate * d.Seconds())
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			defer c.Close()
			var mine []time.Duration
			failed := int64(0)
			for {
				i := next.Add(1)
				if i > total {
					break
				}
				due := began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
				time.Sleep(time.Until(due))
				if err := c.exchange(); err != nil {
					failed++
					break
				}
				mine = append(mine, time.Since(due))
			}
			mu.Lock()
			defer mu.Unlock()
			out.latencies = append(out.latencies, mine...)
			out.failed += failed
		})
	}
	wg.Wait()
	out.took = time.Since(began)
	out.requests = int64(len(out.latencies))
	slices.Sort(out.latencies)
	return out, nil
}

type clientConn struct {
	net.Conn
	r *bufio.Reader
}

func dial(addr string, n int) ([]*clientConn, error) {
	var out []*clientConn
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		out = append(out, &clientConn{c, bufio.NewReaderSize(c, 8192)})
	}
	return out, nil
}

var contentLength = []byte("content-length:")

// exchange sends the request and checks the whole answer.
func (c *clientConn) exchange() error {
	if _, err := io.WriteString(c.Conn, request); err != nil {
		return err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered %q", line)
	}
	length := -1
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if len(line) > len(contentLength) && bytes.EqualFold(line[:len(contentLength)], contentLength) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(contentLength):]))); err != nil {
				return err
			}
		}
	}
	if length != bodySize {
		return errors.New("the body is not the origin's")
	}
	_, err = c.r.Discard(length)
	return err
}
