package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// request is what every contender is sent: eight headers, no body.
const request = "GET /bench HTTP/1.1\r\nHost: api.bench\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Language: en\r\n" +
	"Cache-Control: no-cache\r\nX-Trace: 0123456789abcdef\r\nX-Tenant: blue\r\nCookie: session=abcdef0123456789\r\n\r\n"

// startHTTP1 answers every request with the same body.
func startHTTP1(bodySize int) (*origin, error) {
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", bodySize, bodyOf(bodySize))
	return startOrigin(func(o *origin, c net.Conn) {
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
			o.served.Add(1)
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
}

// h1Load is GET requests over HTTP/1.1.
type h1Load struct{}

func (h1Load) dial(t target) (lane, error) {
	c, err := t.dial()
	if err != nil {
		return nil, err
	}
	return &h1Lane{c, bufio.NewReaderSize(c, 8192), bodyOf(t.body)}, nil
}

func (l h1Load) closed(t target, n int, warm, d time.Duration, measure func(begin bool)) (*result, error) {
	return closedLanes(l, t, n, warm, d, measure)
}

func (l h1Load) open(t target, n int, rate float64, d time.Duration) (*result, error) {
	return openLanes(l, t, n, rate, d)
}

type h1Lane struct {
	net.Conn
	r    *bufio.Reader
	body []byte
}

// bodyOf is what origins answer with.
func bodyOf(size int) []byte { return bytes.Repeat([]byte("x"), size) }

var contentLength = []byte("content-length:")

// exchange sends the request and checks the whole answer.
func (l *h1Lane) exchange() error {
	if _, err := io.WriteString(l.Conn, request); err != nil {
		return err
	}
	line, err := l.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered %q", line)
	}
	length := -1
	for {
		if line, err = l.r.ReadSlice('\n'); err != nil {
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
	if length != len(l.body) {
		return fmt.Errorf("a body of %d bytes, want %d", length, len(l.body))
	}
	for rest := l.body; len(rest) > 0; {
		got, err := l.r.Peek(min(len(rest), l.r.Size()))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, rest[:len(got)]) {
			return errNotTheOrigins
		}
		rest = rest[len(got):]
		_, _ = l.r.Discard(len(got))
	}
	return nil
}

var errNotTheOrigins = errors.New("the answer is not the origin's")
