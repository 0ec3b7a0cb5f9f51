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
		answer, room     int
		first            bool // no exchange was made before
		unread           bool // given back without an answer
		answered, asked  int64
		takenWithoutLook bool
	}{
		"just answered":               {answer: 10, room: 20, takenWithoutLook: true},
		"its first answer":            {answer: 10, room: 20, first: true},
		"no moment ago":               {answer: 10, room: 20, answered: quietFor},
		"not asked for long":          {answer: 10, room: 20, asked: askEvery},
		"given back without answer":   {answer: 10, room: 20, unread: true},
		"more than the answer's room": {answer: 20, room: 10},
		"as much as there was room":   {answer: 20, room: 20},
	} {
		t.Run(name, func(t *testing.T) {
			conn := acquire(t, c, name)
			n++
			peer := s.accepted(t, n)[n-1]
			if !tc.first {
				conn.Release()
				conn = acquire(t, c, name)
			}
			_, _ = peer.Write(make([]byte, tc.answer))
			waitFor(t, func() bool { return !conn.quiet(monotonic()) })
			if _, err := conn.Read(make([]byte, tc.room)); err != nil {
				t.Fatal(err)
			}
			if tc.unread {
				conn.Release()
			} else {
				conn.ReleaseAnswered(monotonic())
			}
			_ = peer.Close()
			waitFor(t, conn.Gone)
			now := monotonic() + int64(time.Hour) // however long the test takes
			if conn.answeredAt > 0 {
				conn.answeredAt = now
			}
			conn.askedAt = now
			if tc.answered > 0 {
				conn.answeredAt = monotonic() - tc.answered
			}
			if tc.asked > 0 {
				conn.askedAt = monotonic() - tc.asked
			}
			taken := acquire(t, c, name) == conn
			if !taken {
				n++
			}
			if taken != tc.takenWithoutLook {
				t.Errorf("taken without a look: %v", taken)
			}
			if taken && conn.Sure() {
				t.Error("a look does not find that the peer has gone")
			}
		})
	}
}
