package main

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// target is what a load is sent to.
type target struct {
	addr string
	body int         // bytes of an answer, a message
	tls  *tls.Config // nil for plaintext
}

func (t target) dial() (net.Conn, error) {
	c, err := net.Dial("tcp", t.addr)
	if err != nil || t.tls == nil {
		return c, err
	}
	s := tls.Client(c, t.tls)
	if err := s.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

// load is a way to keep a target busy.
type load interface {
	// closed keeps n units of concurrency busy for d after a warm-up, and calls
	// measure before and after. Nothing is under way at either moment: what of an
	// exchange was paid for outside of the two would make the slow ones cheap, of
	// which so many are under way beside so few that are done.
	closed(t target, n int, warm, d time.Duration, measure func(begin bool)) (*result, error)
	// open sends at a fixed rate. A latency counts from when the request was due, so
	// that a contender that stalls does not hide it.
	open(t target, n int, rate float64, d time.Duration) (*result, error)
}

// result is what one run of the load saw.
type result struct {
	done, failed int64 // bytes for a bulk load
	took         time.Duration
	latencies    []time.Duration // of the open loop, sorted
	last         error
}

func (r *result) percentile(p float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[min(len(r.latencies)-1, int(p*float64(len(r.latencies))))]
}

// failures keeps the number and the last of the errors of many goroutines.
type failures struct {
	n    atomic.Int64
	last atomic.Pointer[error]
}

func (f *failures) add(err error) {
	f.n.Add(1)
	f.last.Store(&err)
}

func (f *failures) into(r *result) *result {
	r.failed = f.n.Load()
	if e := f.last.Load(); e != nil {
		r.last = *e
	}
	return r
}

// lane is one connection on which one exchange follows the other.
type lane interface {
	exchange() error
	Close() error
}

type dialer interface {
	dial(t target) (lane, error)
}

// dialAll opens n connections and makes the first exchange on each, so that the
// handshakes behind them are over when the warm-up begins.
func dialAll(d dialer, t target, n int) ([]lane, error) {
	out := make([]lane, n)
	errs := make([]error, n)
	for i := range out {
		var err error
		if out[i], err = d.dial(t); err != nil {
			closeAll(out[:i])
			return nil, err
		}
	}
	var wg sync.WaitGroup
	for i, l := range out {
		wg.Go(func() { errs[i] = l.exchange() })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		closeAll(out)
		return nil, err
	}
	return out, nil
}

func closeAll(lanes []lane) {
	for _, l := range lanes {
		l.Close()
	}
}

func closedLanes(d dialer, t target, n int, warm, each time.Duration, measure func(begin bool)) (*result, error) {
	lanes, err := dialAll(d, t, n)
	if err != nil {
		return nil, err
	}
	defer closeAll(lanes)
	if r := busyLanes(lanes, warm); r.failed > 0 {
		return r, nil
	}
	measure(true)
	r := busyLanes(lanes, each)
	measure(false)
	return r, nil
}

// busyLanes has one exchange follow the other on every lane for d, and returns when
// the last are over: they count, and so does their time.
func busyLanes(lanes []lane, d time.Duration) *result {
	var done atomic.Int64
	var stop atomic.Bool
	var failed failures
	var wg sync.WaitGroup
	began := time.Now()
	for _, l := range lanes {
		wg.Go(func() {
			for !stop.Load() {
				if err := l.exchange(); err != nil {
					failed.add(err)
					return
				}
				done.Add(1)
			}
		})
	}
	time.Sleep(d)
	stop.Store(true)
	wg.Wait()
	return failed.into(&result{done: done.Load(), took: time.Since(began)})
}

func openLanes(d dialer, t target, n int, rate float64, each time.Duration) (*result, error) {
	lanes, err := dialAll(d, t, n)
	if err != nil {
		return nil, err
	}
	defer closeAll(lanes)
	s := newSchedule(rate, each)
	var failed failures
	var wg sync.WaitGroup
	for _, l := range lanes {
		wg.Go(func() {
			var mine []time.Duration
			p, err := newPacer()
			if err != nil {
				failed.add(err)
				return
			}
			defer p.Close()
			for due, more := s.next(); more; due, more = s.next() {
				if err = p.wait(due); err == nil {
					err = l.exchange()
				}
				if err != nil {
					failed.add(err)
					break
				}
				mine = append(mine, time.Since(due))
			}
			s.record(mine)
		})
	}
	wg.Wait()
	return failed.into(s.result()), nil
}

// schedule hands out the moments at which an open loop sends, one at least, and collects what
// it saw.
type schedule struct {
	began time.Time
	rate  float64
	total int64
	given atomic.Int64

	mu        sync.Mutex
	latencies []time.Duration
}

func newSchedule(rate float64, d time.Duration) *schedule {
	return &schedule{began: time.Now(), rate: rate, total: max(1, int64(rate*d.Seconds()))}
}

func (s *schedule) next() (due time.Time, more bool) {
	i := s.given.Add(1)
	return s.began.Add(time.Duration(float64(i) / s.rate * float64(time.Second))), i <= s.total
}

func (s *schedule) record(l []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latencies = append(s.latencies, l...)
}

func (s *schedule) result() *result {
	slices.Sort(s.latencies)
	return &result{done: int64(len(s.latencies)), took: time.Since(s.began), latencies: s.latencies}
}

// fresh makes a new connection for every exchange.
type fresh struct{ dialer }

func (f fresh) dial(t target) (lane, error) { return &freshLane{f.dialer, t}, nil }

func (f fresh) closed(t target, n int, warm, d time.Duration, measure func(begin bool)) (*result, error) {
	return closedLanes(f, t, n, warm, d, measure)
}

func (f fresh) open(t target, n int, rate float64, d time.Duration) (*result, error) {
	return openLanes(f, t, n, rate, d)
}

type freshLane struct {
	d dialer
	t target
}

func (f *freshLane) exchange() error {
	l, err := f.d.dial(f.t)
	if err != nil {
		return err
	}
	defer l.Close()
	return l.exchange()
}

func (f *freshLane) Close() error { return nil }
