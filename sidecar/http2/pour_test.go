package http2

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// tank is a sink with room for so much.
type tank struct {
	mu    sync.Mutex
	got   []byte
	calls []int // how many pieces each had
	room  int   // negative is no limit
	stop  bool  // wants no more
	then  func()
}

func (k *tank) Take(pieces [][]byte) (n int, more bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, len(pieces))
	for _, p := range pieces {
		if k.room >= 0 {
			p = p[:min(len(p), k.room)]
			k.room -= len(p)
		}
		k.got = append(k.got, p...)
		n += len(p)
	}
	if k.then != nil {
		k.then()
	}
	return n, !k.stop
}

// onTake has f called with each that is taken, and nil nothing.
func (k *tank) onTake(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.then = f
}

func (k *tank) size() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.got)
}

func (k *tank) has() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return bytes.Clone(k.got)
}

// poured is a tunnel whose bytes go to a tank, and its far end.
func poured(t *testing.T, k *tank) (near, far *Tunnel, returned chan struct{}) {
	t.Helper()
	ends, hold := make(chan *Tunnel, 1), make(chan bool)
	srv := serve(t, ForTunnels(), tunnelServer(ends, hold))
	t.Cleanup(func() { close(hold) })
	near, far, _ = tunnel(t, dialClient(t, srv.addr, ForTunnels()), requests()["connect"], ends)
	t.Cleanup(func() { _ = near.Close() })
	return near, far, pour(t, near, k)
}

// pour pours until there is something else to do.
func pour(t *testing.T, near *Tunnel, k *tank) (returned chan struct{}) {
	t.Helper()
	returned = make(chan struct{})
	go func() { defer close(returned); near.Pour(k) }()
	eventually(t, "nobody pours", func() bool {
		select {
		case <-returned:
			return true
		default:
		}
		near.s.c.mu.Lock()
		defer near.s.c.mu.Unlock()
		return near.s.sink != nil
	})
	return returned
}

func isOpen(c chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return true
	}
}

func wantReturned(t *testing.T, returned chan struct{}) {
	t.Helper()
	select {
	case <-returned:
	case <-time.After(5 * time.Second):
		t.Fatal("Pour goes on")
	}
}

func mustWrite(t *testing.T, far *Tunnel, p string) {
	t.Helper()
	if _, err := far.Write([]byte(p)); err != nil {
		t.Fatal(err)
	}
}

// TestPour: what arrives is the sink's, byte for byte, and its reader is not woken for it; the peer may go on
// for ever.
func TestPour(t *testing.T) {
	k := &tank{room: -1}
	near, far, returned := poured(t, k)
	var sent []byte
	for n := range 200 {
		piece := bytes.Repeat([]byte{byte(n)}, 1+n*59%9000)
		sent = append(sent, piece...)
		mustWrite(t, far, string(piece))
		eventually(t, "it has not come", func() bool { return k.size() == len(sent) })
	}
	if !bytes.Equal(k.has(), sent) || !isOpen(returned) {
		t.Errorf("%d bytes of %d, or others; pours: %v", len(k.has()), len(sent), isOpen(returned))
	}
	_ = near.Close()
	wantReturned(t, returned)
}

// TestPourLeavesTheRest: what a sink does not take, and all that comes after, is there to be read, and so is
// what is too much for the connection's reader, or comes with the end.
func TestPourLeavesTheRest(t *testing.T) {
	bulk := string(bytes.Repeat([]byte("0123456789"), 5000))
	for name, tc := range map[string]struct {
		tank       *tank
		send, want string // want is the sink's
		then       func(far *Tunnel)
	}{
		"a part":         {tank: &tank{room: 3}, send: "abcdef", want: "abc"},
		"nothing":        {tank: &tank{}, send: "abcdef"},
		"all it wants":   {tank: &tank{room: -1, stop: true}, send: "abc", want: "abc"},
		"as much at all": {tank: &tank{room: 6}, send: "abcdef", want: "abcdef", then: func(far *Tunnel) { _ = far.CloseWrite() }},
		"with its end": {tank: &tank{room: -1}, send: "abcdef", then: func(far *Tunnel) {
			_ = far.s.WriteData([]byte("end"), true)
			_ = far.s.Flush()
		}, want: "abcdef"},
	} {
		t.Run(name, func(t *testing.T) {
			k := tc.tank
			near, far, returned := poured(t, k)
			mustWrite(t, far, tc.send)
			rest := tc.send[len(tc.want):]
			eventually(t, "the sink has not got it", func() bool { return string(k.has()) == tc.want && (rest == "" || !isOpen(returned)) })
			if tc.then != nil {
				tc.then(far)
			}
			wantReturned(t, returned)
			if name == "with its end" {
				rest += "end"
			} else if tc.then == nil {
				mustWrite(t, far, bulk)
				rest += bulk
			}
			_ = far.CloseWrite()
			if got, err := io.ReadAll(near); err != nil || string(got) != rest {
				t.Errorf("%v, %d bytes, want %d", err, len(got), len(rest))
			}
		})
	}
}

// TestPourLeavesBulk: more than a frame that came at once is its own reader's.
func TestPourLeavesBulk(t *testing.T) {
	k := &tank{room: -1}
	near, far, returned := poured(t, k)
	near.s.c.mu.Lock() // so that all of it has come when the reader looks
	sent := bytes.Repeat([]byte("0123456789"), 4000)
	mustWrite(t, far, string(sent))
	near.s.c.mu.Unlock()
	_ = far.CloseWrite()
	wantReturned(t, returned)
	rest, err := io.ReadAll(near)
	if got := append(k.has(), rest...); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%v, %d bytes of %d", err, len(got), len(sent))
	}
}

// TestPourEnds: an interruption, a reset, and the end of the connection end it, also while the sink is at it;
// what was taken does not come again.
func TestPourEnds(t *testing.T) {
	for name, end := range map[string]func(near, far *Tunnel){
		"deadline":         func(near, _ *Tunnel) { _ = near.SetReadDeadline(past) },
		"closed":           func(near, _ *Tunnel) { _ = near.Close() },
		"reset":            func(_, far *Tunnel) { _ = far.Close() },
		"connection ended": func(near, _ *Tunnel) { near.s.c.abort(&ConnError{Code: Cancel, Err: ErrClosed}) },
		"panic":            nil,
	} {
		for _, within := range []bool{false, true} {
			if end == nil && !within {
				continue
			}
			t.Run(name, func(t *testing.T) {
				k := &tank{room: -1}
				near, far, returned := poured(t, k)
				switch {
				case end == nil:
					k.onTake(func() { panic("a fault of the sink") })
				case within:
					k.onTake(func() {
						var wg sync.WaitGroup
						wg.Go(func() { end(near, far) })
						t.Cleanup(wg.Wait) // who closes the connection waits for its reader
						eventually(t, "it has not ended", func() bool {
							near.s.c.mu.Lock()
							defer near.s.c.mu.Unlock()
							return near.s.err != nil || near.s.stopRead || name == "reset"
						})
					})
				default:
					end(near, far)
				}
				if within {
					mustWrite(t, far, "abc")
				}
				wantReturned(t, returned)
				chunk, err := near.ReadChunk()
				if err == nil || len(chunk) > 0 {
					t.Errorf("read %q, %v", chunk, err)
				}
				if name == "deadline" {
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error(err)
					}
					_ = near.SetReadDeadline(time.Time{})
					k.onTake(nil)
					again := pour(t, near, k)
					mustWrite(t, far, "def")
					eventually(t, "it does not go on", func() bool { return bytes.HasSuffix(k.has(), []byte("def")) })
					_ = near.Close()
					wantReturned(t, again)
				}
			})
		}
	}
}

// TestPourLeavesNoWindowTaken: the connection's window has all of its bytes again, whatever took them.
func TestPourLeavesNoWindowTaken(t *testing.T) {
	ends, hold := make(chan *Tunnel, 1), make(chan bool)
	srv := serve(t, ForTunnels(), tunnelServer(ends, hold))
	defer close(hold)
	cc := dialClient(t, srv.addr, ForTunnels())
	r := rand.New(rand.NewPCG(1, 2))
	var wg sync.WaitGroup
	for range 200 {
		near, far, _ := tunnel(t, cc, requests()["connect"], ends)
		k := &tank{room: r.IntN(40 << 10), stop: r.IntN(8) == 0}
		if r.IntN(4) == 0 {
			k.then = func() { _ = near.Close() }
		}
		returned := pour(t, near, k)
		wg.Go(func() {
			for n := range 4 {
				_, _ = far.Write(make([]byte, 1+n*5000))
			}
			_ = far.CloseWrite()
		})
		wantReturned(t, returned)
		if r.IntN(2) == 0 {
			_, _ = io.ReadAll(near)
		}
		_ = near.Close()
	}
	wg.Wait()
	eventually(t, "the window is not whole", func() bool {
		cc.mu.Lock()
		defer cc.mu.Unlock()
		return len(cc.streams) == 0 && cc.recvWin+cc.unacked == int64(cc.cfg.ConnWindow)
	})
}

// TestJoinPieces: what is small goes out with the piece before it, where nothing but its frame's header lies
// between.
func TestJoinPieces(t *testing.T) {
	type piece struct{ at, n int }
	for name, tc := range map[string]struct{ have, want []piece }{
		"a tail":            {[]piece{{100, 5000}, {5109, 9}}, []piece{{100, 5009}}},
		"two tails":         {[]piece{{100, 5000}, {5109, 9}, {5127, 1}}, []piece{{100, 5010}}},
		"large":             {[]piece{{100, 5000}, {5109, mostMoved + 1}}, []piece{{100, 5000}, {5109, mostMoved + 1}}},
		"others between":    {[]piece{{100, 5000}, {5118, 9}}, []piece{{100, 5000}, {5118, 9}}},
		"the second of two": {[]piece{{100, 50}, {1000, 50}, {1059, 50}}, []piece{{100, 50}, {1000, 100}}},
	} {
		t.Run(name, func(t *testing.T) {
			in := input{buf: new([inputSize]byte)}
			var u unread
			var sent, got []byte
			for i, p := range tc.have {
				b := in.buf[p.at : p.at+p.n]
				for j := range b {
					b[j] = byte(1 + i)
				}
				sent = append(sent, b...)
				u.add(b)
			}
			u.join(&in)
			var lie []piece
			for _, p := range u.pieces[:u.count] {
				lie = append(lie, piece{in.offset(p), len(p)})
				got = append(got, p...)
			}
			if !slices.Equal(lie, tc.want) || !bytes.Equal(got, sent) || u.n != len(sent) {
				t.Errorf("%v, want %v; %d bytes of %d", lie, tc.want, u.n, len(sent))
			}
		})
	}
}
