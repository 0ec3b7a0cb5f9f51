package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/token"
)

// requests is HTTP/2's preface and the beginnings of n requests that never end.
func requests(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&b, nil)
	err := f.WriteSettings()
	for i := range n {
		err = errors.Join(err, f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: []byte{0x83}, EndHeaders: true}), f.WritePing(false, [8]byte{}))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestStrangersSayLittle: requests are counted however the bytes are divided, and what is
// more than a join takes ends the connection.
func TestStrangersSayLittle(t *testing.T) {
	for _, piece := range []int{1, 2, 8, 9, 1000} {
		c := &strangerConn{rest: prefaceBytes}
		for b := range slices.Chunk(requests(t, 5), piece) {
			c.count(b)
		}
		if c.calls != 5 || c.rest != 0 || len(c.head) != 0 {
			t.Errorf("pieces of %d: %d requests, %d bytes of a frame left", piece, c.calls, c.rest)
		}
	}
	for what, said := range map[string][]byte{
		"requests": requests(t, strangerCalls+1),
		"bytes":    append(requests(t, 1), make([]byte, strangerBytes)...),
	} {
		ours, theirs := net.Pipe()
		c := newStrangerConn(ours, func() {})
		go func() { _, _ = theirs.Write(said); _ = theirs.Close() }()
		if _, err := io.Copy(io.Discard, c); !errors.Is(err, errStranger) {
			t.Errorf("more %s than it takes to join: %v", what, err)
		}
		_ = theirs.Close()
	}
}

func TestStrangersGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		gone := make(chan struct{})
		c := newStrangerConn(ours, func() { close(gone) })
		began := time.Now()
		if _, err := c.Read(make([]byte, 1)); err == nil || time.Since(began) != strangerTime {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		<-gone
		_ = theirs.Close()
	})
}

func TestCrowd(t *testing.T) {
	c := crowd{most: 3, perHost: 2}
	at := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	leave, err := c.enter(at("[2001:db8::1]:1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.enter(at("[2001:db8::ff:2]:1")); err != nil {
		t.Error(err)
	}
	if _, err := c.enter(at("[2001:db8::3]:1")); err == nil {
		t.Error("a third of one network")
	}
	if _, err := c.enter(at("192.0.2.1:1")); err != nil {
		t.Error(err)
	}
	if _, err := c.enter(at("192.0.2.2:1")); err == nil {
		t.Error("a fourth in all")
	}
	leave()
	leave()
	if _, err := c.enter(at("192.0.2.2:1")); err != nil {
		t.Errorf("after one has left: %v", err)
	}
}

// TestCrowdMakesRoom: hosts that hold all there are make room for others, one at a time, as long
// as they have more than those.
func TestCrowdMakesRoom(t *testing.T) {
	c := crowd{most: 4, perHost: 3}
	var ended []string
	enter := func(name, host string) func() {
		t.Helper()
		leave, err := c.admit(&net.TCPAddr{IP: net.ParseIP(host), Port: 1}, func() { ended = append(ended, name) })
		if err != nil && !errors.Is(err, errCrowd) {
			t.Fatal(err)
		}
		return leave
	}
	first := enter("a1", "192.0.2.1")
	enter("a2", "192.0.2.1")
	enter("a3", "192.0.2.1")
	enter("b1", "192.0.2.2")
	if enter("a4", "192.0.2.1") != nil {
		t.Error("more than a host may have")
	}
	if enter("c1", "192.0.2.3") == nil || enter("d1", "192.0.2.4") == nil {
		t.Error("others are kept away")
	}
	if enter("e1", "192.0.2.5") != nil {
		t.Error("one makes room that has no more than the other")
	}
	if !slices.Equal(ended, []string{"a1", "a2"}) {
		t.Errorf("ended: %v", ended)
	}
	first() // it has left
	if c.all != 4 || len(c.inside) != 4 {
		t.Errorf("%d, %d of which can be sent away", c.all, len(c.inside))
	}
}

// TestStrangersAtThePort: without a certificate a connection is for one join, and there are
// only so many of them; who has a certificate is not concerned.
func TestStrangersAtThePort(t *testing.T) {
	w := serveIdentity(t)
	node := w.join(token.RoleNode, "n1")
	for free := false; !free; runtime.Gosched() { // once the joiner's connection has ended here, too
		w.auth.strangers.mu.Lock()
		free = w.auth.strangers.all == 0
		w.auth.strangers.perHost = 2
		w.auth.strangers.mu.Unlock()
	}
	dial := func() *tls.Conn {
		c, err := tls.Dial("tcp", w.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	chatty, held := dial(), dial()
	if _, err := held.Write(requests(t, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := chatty.Write(requests(t, strangerCalls+1)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := io.Copy(io.Discard, chatty); errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%d requests of one stranger are open: %v", strangerCalls+1, err)
	}
	// The slot is free again.
	for range 3 {
		c := dial()
		_, _ = c.Write(requests(t, 1))
	}
	refused := dial()
	if _, err := io.Copy(io.Discard, refused); errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("one stranger too many is served: %v", err)
	}
	if _, err := w.as(node).Report(t.Context(), &identityv1.ReportRequest{}); err != nil {
		t.Errorf("a node: %v", err)
	}
}

// TestRotationBesideASweep: a node that rotates its key while the connections are looked at
// stops neither.
func TestRotationBesideASweep(t *testing.T) {
	w := serveIdentity(t)
	if _, err := w.as(w.join(token.RoleNode, "n1")).Report(t.Context(), &identityv1.ReportRequest{}); err != nil {
		t.Fatal(err)
	}
	open := slices.Collect(maps.Values(w.auth.open()))
	if len(open) != 1 || open[0].Name != "n1" {
		t.Fatalf("the open connections are of %+v", open)
	}
	who := open[0]
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = w.nodes.Update(token.RoleNode, "n1", func(*token.Node) error {
			go w.auth.sweep(false)
			for range 10_000 { // until it waits for the records
				runtime.Gosched()
			}
			w.auth.rekeyed(who, who.Key)
			return errors.New("enough")
		})
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the rotation waits for the sweep, and the sweep for the rotation")
	}
}

// TestRenewalChangesNoRecord: a renewal with the key on record is no news, to nobody.
func TestRenewalChangesNoRecord(t *testing.T) {
	w := serveIdentity(t)
	cert := w.join(token.RoleNode, "n1")
	key := newKey(t)
	reply, err := w.as(cert).Renew(t.Context(), &identityv1.RenewRequest{Csr: w.csr(key, nil)})
	if err != nil {
		t.Fatal(err)
	}
	changed := w.nodes.Changed()
	again, err := w.as(pair(key, reply.GetChain())).Renew(t.Context(), &identityv1.RenewRequest{Csr: w.csr(key, nil)})
	if err != nil {
		t.Fatal(err)
	}
	if reply.GetRecord().GetRevision() != 2 || again.GetRecord().GetRevision() != 2 {
		t.Errorf("revisions %d and %d, want 2", reply.GetRecord().GetRevision(), again.GetRecord().GetRevision())
	}
	select {
	case <-changed:
		t.Error("a renewal changed a record")
	default:
	}
}

// TestRemovedFirstControlPlane: the first control plane of a mesh has no record that could be
// banned; removed, it is lost all the same.
func TestRemovedFirstControlPlane(t *testing.T) {
	w := serveIdentity(t)
	first, err := spiffe.ForControlPlane(testTD, "first")
	if err != nil {
		t.Fatal(err)
	}
	who := Peer{Identity: spiffe.Identity{ID: first, Kind: spiffe.ControlPlane, Name: "first"}}
	if err := w.peers.merge([]*identityv1.ControlPlane{{SpiffeId: first.String(), Revision: 1}}); err != nil {
		t.Fatal(err)
	}
	if w.lost(who) {
		t.Error("lost before it is removed")
	}
	if err := w.RemoveControlPlane(first); err != nil {
		t.Fatal(err)
	}
	if !w.lost(who) {
		t.Error("removed, and its connections stay")
	}
}
