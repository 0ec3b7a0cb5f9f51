package http2

import (
	"errors"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestUnreadAnswer: an answer that is whole is held by who does not read it, though its stream
// is over; also when its connection is. It is found, and can be taken away.
func TestUnreadAnswer(t *testing.T) {
	const size = 1 << 20
	for _, lost := range []bool{false, true} {
		s := serve(t, nil, func(s *Stream) {
			_ = s.WriteHead(&message.Response{Status: 200, ContentLength: size}, false)
			_ = s.WriteData(make([]byte, size), true)
		})
		cc := dialClient(t, s.addr, nil)
		st, err := cc.Open(newRequest("GET", "/"), true)
		if err != nil {
			t.Fatal(err)
		}
		_ = st.Flush()
		eventually(t, "the whole answer", func() bool { return cc.Active() == 0 })
		if lost {
			s.conn(0).abort(errDrained)
			eventually(t, "the connection's end", func() bool {
				cc.mu.Lock()
				defer cc.mu.Unlock()
				return cc.readAll
			})
		}
		all := Hoards(size)
		if len(all) != 1 || all[0].Bytes != size {
			t.Fatalf("lost %v: found %v", lost, all)
		}
		if !all[0].Reset() || all[0].Reset() {
			t.Error("it is not reset once")
		}
		if n := len(Hoards(1)); n != 0 {
			t.Errorf("%d streams hold something still", n)
		}
		if _, _, err := st.Next(); !errors.Is(err, ErrOverloaded) {
			t.Errorf("the reader got %v", err)
		}
		st.Close()
		cc.Close()
		eventually(t, "the connection is forgotten", func() bool {
			open.Lock()
			defer open.Unlock()
			_, ok := open.conns[&cc.conn]
			return !ok
		})
	}
}

// TestAnswerInItsReadersHands: the last of an answer, once its reader has it, is not for anybody to take away.
func TestAnswerInItsReadersHands(t *testing.T) {
	s := serve(t, nil, func(s *Stream) {
		_ = s.WriteHead(&message.Response{Status: 200, ContentLength: 100}, false)
		_ = s.WriteData(make([]byte, 100), true)
	})
	cc := dialClient(t, s.addr, nil)
	st, err := cc.Open(newRequest("GET", "/"), true)
	if err != nil {
		t.Fatal(err)
	}
	_ = st.Flush()
	eventually(t, "the whole answer", func() bool { return cc.Active() == 0 })
	before := Hoards(1)
	if len(before) != 1 {
		t.Fatalf("found %v", before)
	}
	chunk, last, err := st.Next()
	if len(chunk) != 100 || !last || err != nil {
		t.Fatal(len(chunk), last, err)
	}
	if all := Hoards(0); len(all) != 0 {
		t.Errorf("it is still a hoard: %v", all)
	}
	if before[0].Reset() {
		t.Error("it was reset, which frees nothing")
	}
	st.Close()
	cc.Close()
}
