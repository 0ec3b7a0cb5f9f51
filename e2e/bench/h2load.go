package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	h2 "golang.org/x/net/http2"
)

const (
	unaryPath  = "/bench.Echo/Unary"
	streamPath = "/bench.Echo/Stream"
)

// h2Load is requests over HTTP/2: GETs, gRPC calls, or messages to and fro on
// streams that stay open.
type h2Load struct{ grpc, stream bool }

// h2Conns spreads n streams: as many connections as a client of such a size has.
func h2Conns(n int) (conns, streams int) {
	switch {
	case n == 1:
		return 1, 1
	case n <= 64:
		return 2, n / 2
	}
	return n / 100, 100
}

// slot is a unit of concurrency of an h2 load: a request under way or a stream.
type slot struct {
	st  *h2Stream
	due time.Time
}

// h2Client is one connection and its slots.
type h2Client struct {
	*h2Side
	load    h2Load
	message []byte // what is sent of gRPC; an answer is the same, and otherwise a body
	next    uint32
	block   []byte // the request's header block, once it does not change any more
	sent    int
	slots   []*slot
	busy    int           // exchanges under way
	again   bool          // the next exchange of a slot follows the one before
	stop    bool          // none does, any more
	idle    chan struct{} // closed when nothing is under way, nil when nobody waits for it

	done func(s *slot)
}

// begin starts an exchange on every slot; if they are to go on, the next follow.
func (c *h2Client) begin(again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again = again
	for _, s := range c.slots {
		c.send(s)
	}
	_ = c.flush() // the reader tells of an error
}

// rest returns when nothing is under way.
func (c *h2Client) rest() {
	c.mu.Lock()
	idle := make(chan struct{})
	c.idle = idle
	c.noteIdle()
	c.mu.Unlock()
	<-idle
}

// noteIdle tells who waits. mu is held.
func (c *h2Client) noteIdle() {
	if c.busy == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

func (l h2Load) connect(t target, streams int, done func(*slot)) (*h2Client, error) {
	c, err := net.Dial("tcp", t.addr)
	if err != nil {
		return nil, err
	}
	x := &h2Client{h2Side: newH2Side(c), load: l, message: bodyOf(t.body), next: 1, done: done}
	for range streams {
		x.slots = append(x.slots, &slot{})
	}
	if l.grpc {
		x.message = grpcMessage(t.body)
	}
	x.out.WriteString(h2.ClientPreface)
	if err := x.h2Side.begin(h2.Setting{ID: h2.SettingEnablePush}); err != nil {
		c.Close()
		return nil, err
	}
	return x, nil
}

// send begins the slot's next request or message; after the end it does nothing. mu is held.
func (c *h2Client) send(s *slot) {
	if c.stop {
		return
	}
	c.busy++
	if s.st == nil || !c.load.stream {
		s.st = &h2Stream{id: c.next, window: c.initial, slot: s}
		c.streams[c.next] = s.st
		c.next += 2
		c.open(s.st.id)
	}
	if c.load.grpc {
		s.st.queue = append(s.st.queue, c.message...)
		s.st.end = !c.load.stream
		c.h2Side.send(s.st)
	}
}

// open writes the request's headers. The same fields are in the dynamic table
// after they were sent once, so the block is encoded anew only at first.
func (c *h2Client) open(id uint32) {
	if c.sent++; c.sent <= 3 {
		method, path := "GET", "/bench"
		if c.load.grpc {
			method, path = "POST", unaryPath
		}
		if c.load.stream {
			path = streamPath
		}
		fields := []string{":method", method, ":scheme", "http", ":path", path, ":authority", "api.bench", "user-agent", "bench/1.0", "accept-language", "en",
			"cache-control", "no-cache", "x-trace", "0123456789abcdef", "x-tenant", "blue", "cookie", "session=abcdef0123456789"}
		if c.load.grpc {
			fields = append(fields, "content-type", "application/grpc", "te", "trailers")
		}
		c.writeHeaders(id, !c.load.grpc, fields...)
		c.block = append(c.block[:0], c.encoded.Bytes()...)
		return
	}
	_ = c.fr.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: c.block, EndHeaders: true, EndStream: !c.load.grpc})
}

func (c *h2Client) headers(st *h2Stream, name, value string) {
	switch name {
	case ":status":
		st.status = value
	case "grpc-status":
		st.grpcStatus = value
	}
}

func (c *h2Client) headersEnd(id uint32, end bool) error { return c.ended(c.streams[id], end) }

func (c *h2Client) data(st *h2Stream, p []byte, end bool) error {
	if st.got+len(p) > len(c.message) || !bytes.Equal(p, c.message[st.got:][:len(p)]) {
		return errNotTheOrigins
	}
	st.got += len(p)
	if c.load.stream && st.got >= len(c.message) {
		st.got = 0
		c.complete(st)
	}
	return c.ended(st, end)
}

// ended checks a whole answer.
func (c *h2Client) ended(st *h2Stream, end bool) error {
	if st.status != "200" {
		return fmt.Errorf("answered %q", st.status)
	}
	if !end {
		return nil
	}
	delete(c.streams, st.id)
	switch {
	case c.load.stream && !c.stop:
		return fmt.Errorf("the stream ended with grpc-status %q", st.grpcStatus)
	case c.load.grpc && st.grpcStatus != "0":
		return fmt.Errorf("grpc-status %q", st.grpcStatus)
	case c.load.stream:
		c.busy--
		c.noteIdle()
		return nil
	case st.got != len(c.message):
		return fmt.Errorf("%d bytes, want %d", st.got, len(c.message))
	}
	c.complete(st)
	return nil
}

// complete is the end of a request or message. mu is held.
func (c *h2Client) complete(st *h2Stream) {
	c.busy--
	c.done(st.slot)
	if c.again {
		c.send(st.slot)
	}
	c.noteIdle()
}

func (c *h2Client) reset(_ *h2Stream, code h2.ErrCode) error {
	return fmt.Errorf("RST_STREAM: %v", code)
}
func (c *h2Client) over() bool { return c.stop && c.busy == 0 }

// finish lets the reader return once nothing is under way. Held streams are ended as their
// protocol has it: to leave them to be reset is what a proxy takes for a flood, once it is of
// hundreds (Envoy closes the connection between its hops).
func (c *h2Client) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop = true
	if c.load.stream {
		_ = c.conn.SetReadDeadline(time.Now().Add(endWithin)) // a failure, where streams are left
		for _, st := range c.streams {
			c.busy++
			if st.end = true; len(st.queue) == 0 {
				_ = c.fr.WriteData(st.id, true, nil)
			}
		}
		_ = c.flush() // the reader tells of an error
	}
	if c.busy == 0 {
		c.conn.Close()
	}
}

// endWithin is how long streams may take to end.
const endWithin = 5 * time.Second

// each connects, and runs a reader for each connection until all are over.
func (l h2Load) each(t target, n int, done func(*h2Client, *slot), drive func([]*h2Client)) (*failures, error) {
	var failed failures
	conns, streams := h2Conns(n)
	var all []*h2Client
	for range conns {
		var c *h2Client
		c, err := l.connect(t, streams, func(s *slot) { done(c, s) })
		if err != nil {
			return nil, err
		}
		defer c.conn.Close()
		all = append(all, c)
	}
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			if err := c.run(c); err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				if !c.over() {
					failed.add(err)
				}
				c.stop, c.busy = true, 0
				c.noteIdle()
			}
		})
	}
	drive(all)
	wg.Wait()
	return &failed, nil
}

func (l h2Load) closed(t target, n int, warm, d time.Duration, measure func(begin bool)) (*result, error) {
	var done atomic.Int64
	var r *result
	failed, err := l.each(t, n, func(*h2Client, *slot) { done.Add(1) }, func(all []*h2Client) {
		busyFor(all, 0) // the handshakes behind the connections
		busyFor(all, warm)
		measure(true)
		done.Store(0)
		took := busyFor(all, d)
		r = &result{done: done.Load(), took: took}
		measure(false)
		for _, c := range all {
			c.finish()
		}
	})
	if err != nil {
		return nil, err
	}
	return failed.into(r), nil
}

// busyFor has one exchange follow the other on every slot for d, one at least, and
// returns when the last are over.
func busyFor(all []*h2Client, d time.Duration) (took time.Duration) {
	began := time.Now()
	for _, c := range all {
		c.begin(d > 0)
	}
	time.Sleep(d)
	for _, c := range all {
		c.mu.Lock()
		c.again = false
		c.mu.Unlock()
	}
	for _, c := range all {
		c.rest()
	}
	return time.Since(began)
}

func (l h2Load) open(t target, n int, rate float64, d time.Duration) (*result, error) {
	conns, streams := h2Conns(n)
	var s *schedule
	var unpaced failures
	free := make(map[*h2Client]chan *slot, conns)
	seen := make(map[*h2Client][]time.Duration, conns)
	var mu sync.Mutex // seen is written by the readers
	failed, err := l.each(t, n, func(c *h2Client, x *slot) {
		mu.Lock()
		seen[c] = append(seen[c], time.Since(x.due))
		mu.Unlock()
		free[c] <- x
	}, func(all []*h2Client) {
		for _, c := range all {
			free[c] = make(chan *slot, streams)
		}
		busyFor(all, 0) // opens the streams; then all slots are free
		mu.Lock()
		clear(seen)
		s = newSchedule(rate, d)
		mu.Unlock()
		var wg sync.WaitGroup
		for _, c := range all {
			wg.Go(func() {
				if err := l.paced(c, s, free[c]); err != nil {
					unpaced.add(err)
				}
				c.finish()
			})
		}
		wg.Wait()
	})
	if err != nil {
		return nil, err
	}
	for _, l := range seen {
		s.record(l)
	}
	if e := unpaced.last.Load(); e != nil {
		return nil, *e
	}
	return failed.into(s.result()), nil
}

// paced sends on one connection when the schedule says, as long as slots come free.
func (l h2Load) paced(c *h2Client, s *schedule, free <-chan *slot) error {
	p, err := newPacer()
	if err != nil {
		return err
	}
	defer p.Close()
	for due, more := s.next(); more; due, more = s.next() {
		if err := p.wait(due); err != nil {
			return err
		}
		var x *slot
		select {
		case x = <-free:
		case <-time.After(5 * time.Second):
			return errors.New("nothing came back for 5 s")
		}
		x.due = due
		c.mu.Lock()
		if c.stop {
			c.mu.Unlock()
			return nil
		}
		c.send(x)
		_ = c.flush()
		c.mu.Unlock()
	}
	return nil
}
