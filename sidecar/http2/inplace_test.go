package http2

import (
	"bytes"
	"fmt"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// scant takes no more than a part of what it is given at first.
type scant struct {
	stream.TryWriter
	most int // negative is no limit
	got  []int
}

func (s *scant) TryWrite(p []byte) (n int, done bool, err error) {
	s.got = append(s.got, len(p))
	if s.most < 0 || s.most >= len(p) {
		return s.TryWriter.TryWrite(p)
	}
	if n, _, err = s.TryWriter.TryWrite(p[:s.most]); err != nil {
		return n, false, err
	}
	return n, false, nil
}

// TestBulkIsWrittenInPlace: bulk is written from where it was read, with other numbers in its
// headers, where it lies frame behind frame and nothing waits before it; otherwise, and for what is
// not taken at once, from a copy. Either way it arrives whole and in order.
func TestBulkIsWrittenInPlace(t *testing.T) {
	type frame struct{ stream, before, length int } // bytes between it and the last
	const head = frameHeaderLen
	for name, tc := range map[string]struct {
		frames  []frame
		at      int // of the first in the input
		waits   bool
		most    int
		inPlace bool
		refused bool
	}{
		"of two streams":                 {frames: []frame{{0, head, 9000}, {1, head, 9000}}, inPlace: true, most: -1},
		"of one in two frames":           {frames: []frame{{0, head, 16384}, {0, head, 5}}, inPlace: true, most: -1},
		"the rest of a frame":            {frames: []frame{{0, 0, 9000}, {1, head, 9000}}, at: head, inPlace: true, most: -1},
		"no room before it":              {frames: []frame{{0, 0, 9000}, {1, head, 9000}}, at: head - 1, most: -1},
		"a frame between":                {frames: []frame{{0, head, 9000}, {1, 30, 9000}}, most: -1},
		"padding":                        {frames: []frame{{0, head + 1, 17000}}, inPlace: true, most: -1},
		"padding between":                {frames: []frame{{0, head, 9000}, {1, head + 4, 9000}}, most: -1},
		"the rest behind its beginning":  {frames: []frame{{0, head, 9000}, {0, 0, 9000}}, most: -1},
		"little":                         {frames: []frame{{0, head, 1000}, {1, head, 1000}}, most: -1},
		"something waits":                {frames: []frame{{0, head, 9000}, {1, head, 9000}}, waits: true, most: -1},
		"a part is taken":                {frames: []frame{{0, head, 9000}, {1, head, 9000}}, inPlace: true, most: 12000},
		"nothing is taken":               {frames: []frame{{0, head, 9000}, {1, head, 9000}}, inPlace: true},
		"more than the peer may be sent": {frames: []frame{{0, head, 16000}, {1, head, 16000}}, most: -1, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			r, cc := rawServer(t, nil)
			quiet := func() bool {
				cc.mu.Lock()
				defer cc.mu.Unlock()
				return cc.haveSettings && cc.unackedSet == 0 && !cc.w.writing && cc.w.pending() == 0
			}
			var to [2]*Stream
			for i := range to {
				s, err := cc.Open(newRequest("POST", "/"), false)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
				to[i] = s
				r.next(xhttp2.FrameHeaders)
			}
			eventually(t, "nothing is written", quiet)

			c := &conn{}
			in := &c.in
			in.TakeBuffer()
			from := [2]*Stream{{streamState: streamState{c: c, pipeTo: to[0]}}, {streamState: streamState{c: c, pipeTo: to[1]}}}
			from[0].wnext = from[1]
			var want [2][]byte
			at := tc.at
			for i, f := range tc.frames {
				at += f.before
				p := in.buf[at : at+f.length]
				copy(p, bytes.Repeat([]byte{byte('a' + i), byte(i), 7}, f.length))
				want[f.stream] = append(want[f.stream], p...)
				from[f.stream].unread.add(p)
				at += f.length
			}
			before := *in.buf
			cc.mu.Lock()
			spy := &scant{TryWriter: cc.try, most: tc.most}
			cc.try = spy
			if tc.waits {
				to[0].appendData([]byte("first "), false)
				want[0] = append([]byte("first "), want[0]...)
			}
			if tc.refused {
				cc.sendWin = 20000
			}
			cc.mu.Unlock()
			if rest, _ := c.takeRun(from[0]); rest != nil {
				t.Fatal("streams of one connection are left")
			}
			if all := from[0].passed && from[1].passed; all == tc.refused {
				t.Errorf("all was passed on: %v", all)
			}
			if inPlace := *in.buf != before; inPlace != tc.inPlace {
				t.Errorf("written in place: %v", inPlace)
			}
			if tc.refused {
				return
			}
			*in.buf = [inputSize]byte{} // the next bytes that are read
			if err := to[0].Flush(); err != nil {
				t.Fatal(err)
			}
			var got [2][]byte
			for len(got[0]) < len(want[0]) || len(got[1]) < len(want[1]) {
				f := r.next(xhttp2.FrameData).(*xhttp2.DataFrame)
				i := 0
				if f.StreamID == to[1].id {
					i = 1
				}
				got[i] = append(got[i], f.Data()...)
			}
			for i := range got {
				if !bytes.Equal(got[i], want[i]) {
					t.Errorf("stream %d: %s", i, firstDifference(got[i], want[i]))
				}
			}
			eventually(t, "nothing is written", quiet)
			cc.mu.Lock()
			defer cc.mu.Unlock()
			if sent := int64(initialWindow) - cc.sendWin; sent != int64(len(want[0])+len(want[1])) || cc.w.frames+cc.w.flyingFrames != 0 {
				t.Errorf("%d bytes are counted, and %d frames not yet written", sent, cc.w.frames+cc.w.flyingFrames)
			}
		})
	}
}

func firstDifference(got, want []byte) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("byte %d of %d is %d, want %d", i, len(want), got[i], want[i])
		}
	}
	return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
}
