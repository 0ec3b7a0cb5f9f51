package stream

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/sidecar/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err == nil {
			b = c.(*net.TCPConn)
		}
	})
	c, err := net.Dial("tcp", l.Addr().String())
	wg.Wait()
	if err != nil || b == nil {
		t.Fatal(err)
	}
	a = c.(*net.TCPConn)
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

func socketPair(t testing.TB) (s *Socket, peer *net.TCPConn) {
	a, b := tcpPair(t)
	s, err := NewSocket(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, b
}

const clientID = "spiffe://td/ns/default/dc/dc1/svc/web"

func certificate(t testing.TB, id string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(id)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tlsPair returns two TLS streams that talk to each other; server is the one under
// test.
func tlsPair(t testing.TB) (server, client *TLS) {
	return tlsPairOf(t, &tls.Config{SessionTicketsDisabled: true})
}

// tlsPairOf is tlsPair with a server's configuration, which it completes.
func tlsPairOf(t testing.TB, cfg *tls.Config) (server, client *TLS) {
	t.Helper()
	a, b := tcpPair(t)
	cert := certificate(t, clientID)
	cfg.Certificates, cfg.ClientAuth, cfg.DynamicRecordSizingDisabled = []tls.Certificate{cert}, tls.RequireAnyClientCert, true
	server, err := ServerTLS(a, nil, cfg)
	if err != nil {
		t.Fatal(err)
	}
	toServer := &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, ServerName: "api.example"}
	client, err = ClientTLS(b, toServer)
	if err != nil {
		t.Fatal(err)
	}
	if libraryAlone { // to which nobody listens
		server.tls, client.tls = tls.Server(server.raw, cfg), tls.Client(client.raw, toServer)
		server.records, client.records = library{server.tls, server.raw}, library{client.tls, client.raw}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := client.Handshake(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := server.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for _, s := range []*TLS{server, client} {
		if _, own := s.records.(*record.Conn); own != (s.Info().TLSVersion == tls.VersionTLS13 && !libraryAlone) {
			t.Fatalf("%T protects a connection of %s", s.records, tls.VersionName(s.Info().TLSVersion))
		}
	}
	return server, client
}

// libraryAlone has crypto/tls go on with tests' connections of TLS 1.3.
var libraryAlone bool

// byLibrary has it so during a test.
func byLibrary(t *testing.T) {
	libraryAlone = true
	t.Cleanup(func() { libraryAlone = false })
}

// lender counts what it lends.
type lender struct {
	buf         []byte
	taken, drop int
}

func (l *lender) TakeBuffer() []byte { l.taken++; return l.buf }
func (l *lender) DropBuffer()        { l.drop++ }

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal(what)
}

func TestSocketReadReady(t *testing.T) {
	s, peer := socketPair(t)
	l := &lender{buf: make([]byte, 64)}
	go func() {
		time.Sleep(20 * time.Millisecond)
		_, _ = peer.Write([]byte("hello"))
	}()
	n, err := s.ReadReady(l)
	if err != nil || string(l.buf[:n]) != "hello" {
		t.Fatalf("%q %v", l.buf[:n], err)
	}
	if l.taken != l.drop+1 || l.drop == 0 {
		t.Errorf("taken %d times, dropped %d: it waited with a buffer", l.taken, l.drop)
	}
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := s.ReadReady(l); !IsTimeout(err) {
		t.Errorf("past the deadline: %v", err)
	}
	_ = s.SetReadDeadline(time.Time{})
	_ = peer.CloseWrite()
	if _, err := s.ReadReady(l); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	_ = s.Close()
	if _, err := s.ReadReady(l); err == nil {
		t.Error("a closed socket was read")
	}
}

func TestExchange(t *testing.T) {
	s, peer := socketPair(t)
	big := strings.Repeat("x", 8<<20) // more than the kernel takes at once
	for _, out := range []string{"ping", big} {
		go func() {
			_, _ = io.ReadFull(peer, make([]byte, len(out)))
			_, _ = peer.Write([]byte("pong"))
		}()
		l := &lender{buf: make([]byte, 64)}
		written, n, err := s.Exchange([]byte(out), l, false)
		if err != nil || written != len(out) || string(l.buf[:n]) != "pong" {
			t.Fatalf("wrote %d of %d, read %q: %v", written, len(out), l.buf[:n], err)
		}
	}
	_ = peer.SetLinger(0)
	_ = peer.Close()
	eventually(t, "the reset did not arrive", s.Gone)
	written, _, err := s.Exchange([]byte("ping"), &lender{buf: make([]byte, 8)}, false)
	if err == nil || written != 0 {
		t.Errorf("on a dead connection: wrote %d, %v", written, err)
	}
}

// TestExchangeFindsEarlyAnswer: an answer that is there before the wait begins does
// not get lost between the poller's edges.
func TestExchangeFindsEarlyAnswer(t *testing.T) {
	s, peer := socketPair(t)
	exchangeMany(t, s, peer)
}

func TestSocketQuietAndGone(t *testing.T) {
	s, peer := socketPair(t)
	if !s.Quiet() || s.Gone() {
		t.Error("a silent peer")
	}
	_, _ = peer.Write([]byte("x"))
	eventually(t, "bytes that wait were not seen", func() bool { return !s.Quiet() })
	if s.Gone() {
		t.Error("a peer that spoke is not gone")
	}
	_ = peer.Close()
	eventually(t, "a FIN behind bytes was not seen", s.Gone)
}

func TestTLSInfo(t *testing.T) {
	server, _ := tlsPair(t)
	i := server.Info()
	if i.PeerID != clientID || !i.TLS || i.TLSVersion != tls.VersionTLS13 || i.SNI != "api.example" || len(i.PeerCertHash) != 64 || i.PeerNotAfter.IsZero() {
		t.Errorf("%+v", i)
	}
}

func TestTLSReadReady(t *testing.T) {
	server, client := tlsPair(t)
	for _, msg := range []string{"x", "hello", strings.Repeat("long", 1000)} {
		l := &lender{buf: make([]byte, 8192)}
		go func() {
			time.Sleep(10 * time.Millisecond)
			_, _ = client.Write([]byte(msg))
		}()
		got := ""
		for len(got) < len(msg) {
			n, err := server.ReadReady(l)
			if err != nil {
				t.Fatal(err)
			}
			got += string(l.buf[:n])
		}
		if got != msg || l.drop == 0 {
			t.Errorf("%d of %d bytes, dropped %d", len(got), len(msg), l.drop)
		}
	}
	// What a small buffer left is found without waiting.
	_, _ = client.Write([]byte("abcdef"))
	l := &lender{buf: make([]byte, 2)}
	for _, want := range []string{"ab", "cd", "ef"} {
		n, err := server.ReadReady(l)
		if err != nil || string(l.buf[:n]) != want {
			t.Fatalf("%q %v", l.buf[:n], err)
		}
	}
	_ = client.CloseWrite()
	if _, err := server.ReadReady(l); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// TestTLSReadReadyTogether: records that came together are read together.
func TestTLSReadReadyTogether(t *testing.T) {
	server, client := tlsPair(t)
	l := &lender{buf: make([]byte, 64)}
	for _, msgs := range [][]string{{"a"}, {"first ", "second"}, {"1", "2", "3", "4"}, {"", "after nothing"}, {strings.Repeat("x", 60), "more than", " fits"}} {
		before, sent := l.taken, 0
		for _, m := range msgs {
			_, _ = client.Write([]byte(m))
			if m != "" {
				sent += len(m) + 22 // RFC 8446 5.2: header, type, tag
			}
		}
		eventually(t, "the records have not arrived", func() bool {
			n := 0
			_ = server.raw.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
			return n == sent
		})
		want, got := strings.Join(msgs, ""), ""
		for len(got) < len(want) {
			n, err := server.ReadReady(l)
			if err != nil {
				t.Fatal(err)
			}
			got += string(l.buf[:n])
		}
		if reads := l.taken - before; got != want || reads != (len(want)+len(l.buf)-1)/len(l.buf) {
			t.Errorf("%q in %d reads, want %q", got, reads, want)
		}
	}
}

func TestTLSQuiet(t *testing.T) {
	server, client := tlsPair(t)
	if !server.Quiet() {
		t.Error("a silent peer")
	}
	// Two records in one segment: the second stays inside of crypto/tls, where no
	// look at the socket finds it.
	raw := client.raw.Conn.(*net.TCPConn)
	_ = raw.SetNoDelay(false)
	buf := make([]byte, 64)
	for range 50 {
		_, _ = client.Write([]byte("first"))
		_, _ = client.Write([]byte("second"))
		time.Sleep(2 * time.Millisecond)
		n, err := server.Read(buf)
		if err != nil || string(buf[:n]) != "first" {
			t.Fatalf("%q %v", buf[:n], err)
		}
		if server.Quiet() {
			t.Fatal("a record that waits inside of TLS was not seen")
		}
		// The byte that the look took is not lost.
		n, _ = io.ReadFull(server, buf[:6])
		if string(buf[:n]) != "second" {
			t.Fatalf("%q", buf[:n])
		}
		if !server.Quiet() {
			t.Fatal("nothing is left, and it is not quiet")
		}
	}
	_ = client.Close()
	eventually(t, "the end was not seen", server.Gone)
	if server.Quiet() {
		t.Error("a closed peer is not quiet")
	}
}

// TestWriteSome: a write of some waits for the socket to take anything, and not for all; piece by piece all arrives.
func TestWriteSome(t *testing.T) {
	sock, peer := socketPair(t)
	data := make([]byte, 32<<20) // more than any socket buffer
	for i := range data {
		data[i] = byte(i >> 10)
	}
	if n, err := sock.WriteSome(nil); n != 0 || err != nil {
		t.Errorf("of nothing: %d, %v", n, err)
	}
	n, _, err := sock.TryWrite(data)
	if err != nil {
		t.Fatal(err)
	}
	_ = sock.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if m, err := sock.WriteSome(data[n:]); m != 0 || !IsTimeout(err) {
		t.Fatalf("while the peer reads nothing: %d, %v", m, err)
	}
	_ = sock.SetWriteDeadline(time.Time{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n < len(data) {
			m, err := sock.WriteSome(data[n:])
			if m == 0 || err != nil {
				t.Errorf("%d, %v", m, err)
				return
			}
			n += m
		}
	})
	got := make([]byte, len(data))
	if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("other bytes, or %v", err)
	}
	wg.Wait()
	// Write is what it was.
	wg.Go(func() { _, _ = io.ReadFull(peer, got) })
	if n, err := sock.Write(data); n != len(data) || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	wg.Wait()
	abort(peer)
	if _, err := sock.WriteSome(data); err == nil {
		if n, err := sock.WriteSome(data); err == nil {
			t.Errorf("to a peer that has left: %d", n)
		}
	}
}

// TestTryWrite: a write that does not wait takes what fits; what follows it with Write
// arrives whole and in order.
func TestTryWrite(t *testing.T) {
	sock, peer := socketPair(t)
	server, client := tlsPair(t)
	for name, c := range map[string]struct {
		w Stream
		r io.Reader
	}{"socket": {sock, peer}, "TLS": {server, client}} {
		t.Run(name, func(t *testing.T) {
			data := make([]byte, 32<<20) // more than any socket buffer
			for i := range data {
				data[i] = byte(i >> 10)
			}
			n, done, err := c.w.(TryWriter).TryWrite(data[:100])
			if n != 100 || !done || err != nil {
				t.Fatalf("a small write: %d, %v, %v", n, done, err)
			}
			if n, done, err = c.w.(TryWriter).TryWrite(data[100:]); done || err != nil || n == 0 || n == len(data)-100 {
				t.Fatalf("a large write: %d, %v, %v", n, done, err)
			}
			n += 100
			// Again, while the peer still reads nothing.
			if m, done, err := c.w.(TryWriter).TryWrite(data[n:]); done || err != nil {
				t.Fatalf("%d, %v, %v", m, done, err)
			} else {
				n += m
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if m, err := c.w.Write(data[n:]); m != len(data)-n || err != nil {
					t.Errorf("Write: %d, %v", m, err)
				}
			})
			got := make([]byte, len(data))
			if _, err := io.ReadFull(c.r, got); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			for i := range got {
				if got[i] != data[i] {
					t.Fatalf("byte %d is wrong", i)
				}
			}
		})
	}
}

// TestTryWriteKeepsTheLastRecord: an empty Write gets rid of what TryWrite has begun.
func TestTryWriteKeepsTheLastRecord(t *testing.T) {
	server, client := tlsPair(t)
	data := make([]byte, 64<<10)
	total := 0
	for {
		n, done, err := server.TryWrite(data)
		if err != nil {
			t.Fatal(err)
		}
		total += n
		if !done {
			break // what was taken is not all gone
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := server.Write(nil); err != nil {
			t.Error(err)
		}
	})
	if _, err := io.ReadFull(client, make([]byte, total)); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// TestProxiedClient: what a proxy tells of a TLS client does not hide the proxy, nor where it connected to.
func TestProxiedClient(t *testing.T) {
	server, client := tlsPair(t)
	told := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	server.SetRemote(told)
	if i := server.Info(); i.Remote != net.Addr(told) || i.Local.String() != client.Info().Remote.String() || i.Direct.String() != client.Info().Local.String() {
		t.Errorf("%+v", i)
	}
}

// TestServerNameHasNoCase: a rule about it compares bytes.
func TestServerNameHasNoCase(t *testing.T) {
	a, b := tcpPair(t)
	server, err := ServerTLS(a, nil, &tls.Config{Certificates: []tls.Certificate{certificate(t, clientID)}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_ = tls.Client(b, &tls.Config{InsecureSkipVerify: true, ServerName: "Admin.Example"}).Handshake()
	})
	if err := server.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := server.Info().SNI; got != "admin.example" {
		t.Errorf("the server name is %q", got)
	}
}

// TestTLSReadReadyTellsOfEachWait: also of one after a read that filled its buffer and left
// nothing, which no one can tell from one that left some of its record.
func TestTLSReadReadyTellsOfEachWait(t *testing.T) {
	server, client := tlsPair(t)
	_, _ = client.Write([]byte("abcd"))
	l := &lender{buf: make([]byte, 4)}
	if n, err := server.ReadReady(l); n != 4 || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	before := l.drop
	w := &waiter{lender: l, waits: func() { _, _ = client.Write([]byte("ef")) }}
	_ = server.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := server.ReadReady(w); err != nil || string(l.buf[:n]) != "ef" || l.drop != before+1 {
		t.Errorf("%d bytes, %v: it waited, and told of %d waits", n, err, l.drop-before)
	}
}

// waiter is told that a read is about to wait.
type waiter struct {
	*lender
	waits func()
}

func (w *waiter) DropBuffer() { w.lender.DropBuffer(); w.waits() }
