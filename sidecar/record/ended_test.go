package record

import (
	"io"
	"testing"
)

// TestEnded: that the peer sends no more is known before it is read, and behind what came before it
// only once that was read. To look takes nothing.
func TestEnded(t *testing.T) {
	server, client := pair(t, true, true)
	s, c := server.(*Conn), client.(*Conn)
	sealed := func(kind contentType, content ...byte) []byte {
		return s.out.seal(make([]byte, 0, 100), kind, content)
	}
	data, end := sealed(typeData, 1, 0), sealed(typeAlert, 1, alertCloseNotify)
	for name, ahead := range map[string][]byte{
		"nothing": nil, "a part": end[:len(end)-1], "data": data, "its number is not the next": end, "garbage": make([]byte, Farewell),
	} {
		if c.Ended(append([]byte{}, ahead...)) {
			t.Errorf("%s is taken for the end", name)
		}
	}
	_, _ = s.Transport.Write(data)
	p := make([]byte, 10)
	if n, err := c.Read(p[:1]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if c.Ended(append([]byte{}, end...)) {
		t.Error("the end in front of what is left of a record")
	}
	if n, err := c.Read(p); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for range 2 {
		if !c.Ended(append([]byte{}, end...)) {
			t.Fatal("the end is not seen")
		}
	}
	// Some of it was received already.
	c.in.buf = end[:7:7]
	if !c.Ended(append([]byte{}, end[7:]...)) || c.Ended(append([]byte{}, end[7:20]...)) {
		t.Error("of an end in two parts")
	}
	c.in.buf = nil
	_, _ = s.Transport.Write(end)
	if _, err := c.Read(p); err != io.EOF {
		t.Fatal(err)
	}
	if !c.Ended(nil) {
		t.Error("the end is not known once it was read")
	}
}

// TestOtherAlertsAreNoEnd: what is no close_notify is for who reads.
func TestOtherAlertsAreNoEnd(t *testing.T) {
	for _, content := range [][]byte{{1, alertUserCanceled}, {2, alertInternalError}} {
		server, client := pair(t, true, true)
		s, c := server.(*Conn), client.(*Conn)
		if c.Ended(s.out.seal(make([]byte, 0, 100), typeAlert, content)) {
			t.Errorf("alert %d is taken for the end", content[1])
		}
	}
}
