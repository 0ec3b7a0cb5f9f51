package cluster

import (
	"testing"
	"time"
)

// TestJustQuiet: the kernel is asked about an idle connection unless its last answer came
// a moment ago and was all that the peer had sent.
func TestJustQuiet(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", s.addr)})
	n := 0
	for name, tc := range map[string]struct {
		answer, room int
		reused       bool
		long         bool // idle for longer than a moment
		want         bool
	}{
		"just answered":               {10, 20, true, false, true},
		"its first answer":            {10, 20, false, false, false},
		"no moment ago":               {10, 20, true, true, false},
		"more than the answer's room": {20, 10, true, false, false},
		"as much as there was room":   {20, 20, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn := acquire(t, c, name)
			n++
			peer := s.accepted(t, n)[n-1]
			if tc.reused {
				conn.Release()
				conn = acquire(t, c, name)
			}
			_, _ = peer.Write(make([]byte, tc.answer))
			waitFor(t, func() bool { return !conn.quiet() })
			if _, err := conn.Read(make([]byte, tc.room)); err != nil {
				t.Fatal(err)
			}
			conn.Release()
			_ = peer.Close()
			waitFor(t, conn.Gone)
			conn.idleSince = monotonic() + int64(time.Hour) // however long the test takes
			if tc.long {
				conn.idleSince = monotonic() - quietFor
			}
			taken := acquire(t, c, name) == conn
			if !taken {
				n++
			}
			if taken != tc.want {
				t.Errorf("taken without asking: %v", taken)
			}
		})
	}
}
