package tcp

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
)

// TestCloseDraining: what moves when a connection is to finish is the last that does; who does not
// ask for it goes on.
func TestCloseDraining(t *testing.T) {
	for closes, want := range map[bool]string{true: "- 8 4 up draining", false: "- 8 8 up -"} {
		got := make(chan string, 1)
		m := upstream(t, func(c *net.TCPConn) {
			var b [4]byte
			_, _ = io.ReadFull(c, b[:])
			_, _ = c.Write(b[:])
			_, _ = io.ReadFull(c, b[:])
			got <- string(b[:])
			if _, err := c.Read(b[:1]); err != io.EOF && closes {
				t.Errorf("the upstream is not closed: %v", err)
			}
			_, _ = c.Write(b[:])
		})
		client, line := serve(t, Config{Cluster: "up", CloseDraining: closes}, m)
		var b [4]byte
		if _, err := client.Write([]byte("one.")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, b[:]); err != nil {
			t.Fatal(err)
		}
		waitParked(t)
		lastConn.StartDrain()
		if _, err := client.Write([]byte("two.")); err != nil {
			t.Fatal(err)
		}
		if last := <-got; last != "two." {
			t.Errorf("the upstream got %q last", last)
		}
		if !closes {
			_ = client.CloseWrite()
		}
		if rest, err := io.ReadAll(client); err != nil || (len(rest) == 0) != closes {
			t.Errorf("closes %t: the client got %q, %v", closes, rest, err)
		}
		if s := line(); s != want {
			t.Errorf("closes %t: %q, want %q", closes, s, want)
		}
	}
}

// TestCloseDrainingWholly: what one end has said is not cut because the other is the one whose bytes
// were the last.
func TestCloseDrainingWholly(t *testing.T) {
	accepted, drained, forwarded := make(chan int, 1), make(chan struct{}), make(chan struct{})
	said := make(chan error, 1)
	m := upstream(t, func(c *net.TCPConn) {
		_ = c.SetWriteBuffer(64 << 10)
		n, chunk := 0, make([]byte, 32<<10)
		for {
			_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			k, err := c.Write(chunk)
			if n += k; err != nil {
				break
			}
		}
		accepted <- n
		<-drained
		var b [4]byte
		_, err := io.ReadFull(c, b[:])
		close(forwarded)
		if err != nil || string(b[:]) != "last" {
			t.Errorf("the upstream got %q, %v", b[:], err)
		}
		_, err = c.Read(b[:1])
		said <- err
	})
	client, line := serve(t, Config{Cluster: "up", CloseDraining: true}, m)
	n := <-accepted
	lastConn.StartDrain()
	if _, err := client.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	close(drained)
	<-forwarded // the direction to the client is in a write all the while
	got, err := io.Copy(io.Discard, client)
	if err != nil || got != int64(n) {
		t.Errorf("the client got %d of %d, %v", got, n, err)
	}
	if err := <-said; err != io.EOF {
		t.Errorf("the upstream's end: %v", err)
	}
	if s, want := line(), fmt.Sprintf("- 4 %d up draining", n); s != want {
		t.Errorf("%q, want %q", s, want)
	}
}

// TestExtensions: what a proxy adds stands beside what a client's header said as Envoy has it.
func TestExtensions(t *testing.T) {
	var none proxytlv.List
	own := none.With(1, "own").With(9, "n")
	said := none.With(1, "a").With(2, "b").With(1, "c")
	for _, tc := range []struct {
		merge Merge
		said  *authz.Announced
		want  proxytlv.List
	}{
		{IfAbsent, nil, own}, {Overwrite, nil, own}, {Append, nil, own},
		{IfAbsent, &authz.Announced{}, none}, {Overwrite, &authz.Announced{}, own}, {Append, &authz.Announced{}, own},
		{IfAbsent, &authz.Announced{Extensions: proxytlv.Client{Said: said}}, said},
		{Overwrite, &authz.Announced{Extensions: proxytlv.Client{Said: said}}, own + none.With(2, "b")},
		{Append, &authz.Announced{Extensions: proxytlv.Client{Said: said}}, said + own},
	} {
		if got := (&Config{Extensions: own, Merge: tc.merge}).extensions(tc.said).List(); got != tc.want {
			t.Errorf("%d: %+v: %q, want %q", tc.merge, tc.said, got, tc.want)
		}
	}
}
