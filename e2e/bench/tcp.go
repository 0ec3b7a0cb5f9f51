package main

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// origin is where every job ends.
type origin struct {
	ln     net.Listener
	served atomic.Int64 // requests, messages or streams
}

// startOrigin serves each connection until serve returns.
func startOrigin(serve func(o *origin, c net.Conn)) (*origin, error) {
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
			go func() {
				defer c.Close()
				serve(o, c)
			}()
		}
	}()
	return o, nil
}

// messageSize is of a TCP message: there is none of no bytes.
func messageSize(body int) int { return max(body, 1) }

// startEcho sends every message back, whole.
func startEcho(bodySize int) (*origin, error) {
	return startOrigin(func(o *origin, c net.Conn) {
		b := make([]byte, messageSize(bodySize))
		for {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			o.served.Add(1)
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
}

// tcpLoad is messages that are echoed.
type tcpLoad struct{}

func (tcpLoad) dial(t target) (lane, error) {
	c, err := t.dial()
	if err != nil {
		return nil, err
	}
	n := messageSize(t.body)
	return &tcpLane{c, bodyOf(n), make([]byte, n)}, nil
}

func (l tcpLoad) closed(t target, n int, warm, d time.Duration, measure func(begin bool)) (*result, error) {
	return closedLanes(l, t, n, warm, d, measure)
}

func (l tcpLoad) open(t target, n int, rate float64, d time.Duration) (*result, error) {
	return openLanes(l, t, n, rate, d)
}

type tcpLane struct {
	net.Conn
	message, answer []byte
}

func (l *tcpLane) exchange() error {
	if _, err := l.Write(l.message); err != nil {
		return err
	}
	if _, err := io.ReadFull(l.Conn, l.answer); err != nil {
		return err
	}
	if !bytes.Equal(l.answer, l.message) {
		return errNotTheOrigins
	}
	return nil
}

// startSource sends without end.
func startSource(int) (*origin, error) {
	block := bodyOf(64 << 10)
	return startOrigin(func(o *origin, c net.Conn) {
		o.served.Add(1)
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
}

// bulkLoad reads as fast as it can.
type bulkLoad struct{}

func (bulkLoad) closed(t target, n int, warm, d time.Duration, measure func(begin bool)) (*result, error) {
	var sum atomic.Int64
	var stop atomic.Bool
	var failed failures
	var wg sync.WaitGroup
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range n {
		c, err := t.dial()
		if err != nil {
			return nil, err
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	want := bodyOf(256 << 10)
	for _, c := range conns {
		wg.Go(func() {
			b := make([]byte, 256<<10)
			for !stop.Load() {
				n, err := c.Read(b)
				if err == nil && !bytes.Equal(b[:n], want[:n]) {
					err = errNotTheOrigins
				}
				sum.Add(int64(n))
				if err != nil {
					failed.add(err)
					return
				}
			}
		})
	}
	time.Sleep(warm)
	measure(true)
	before, began := sum.Load(), time.Now()
	time.Sleep(d)
	stop.Store(true)
	r := &result{took: time.Since(began), done: sum.Load() - before}
	measure(false)
	wg.Wait()
	return failed.into(r), nil
}

// open has no meaning for a stream that is always full.
func (bulkLoad) open(target, int, float64, time.Duration) (*result, error) { return nil, nil }
