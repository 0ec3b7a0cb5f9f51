package record

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// below is a net.Conn as a Transport. During a handshake it reads no further than to the end of
// a record, as one has to.
type below struct {
	net.Conn
	shaking      bool
	header, body int // what is missing of them
	size         [2]byte
	most         int // of one read, 0 is any
}

func (b *below) Read(p []byte) (int, error) {
	if !b.shaking {
		return b.Conn.Read(p)
	}
	if b.header == 0 && b.body == 0 {
		b.header = headerSize
	}
	if b.header == 0 {
		n, err := b.Conn.Read(p[:min(len(p), b.body)])
		b.body -= n
		return n, err
	}
	n, err := b.Conn.Read(p[:1])
	if n == 1 {
		b.header--
		if b.header < 2 {
			b.size[1-b.header] = p[0]
		}
		if b.header == 0 {
			b.body = int(b.size[0])<<8 | int(b.size[1])
		}
	}
	return n, err
}

func (b *below) ReadLent(l Buffers) (int, error) {
	p := l.TakeBuffer()
	if b.most > 0 {
		p = p[:min(len(p), b.most)]
	}
	return b.Conn.Read(p)
}

func (b *below) WriteLater(p []byte) { _, _ = b.Conn.Write(p) }

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"peer"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// side is a connection whose handshake is over: ours, or crypto/tls's.
type side interface {
	io.ReadWriteCloser
	CloseWrite() error
	SetDeadline(time.Time) error
}

// pair makes two sides over a socket.
func pair(t testing.TB, ourServer, ourClient bool) (server, client side) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	made := make(chan side)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			panic(err)
		}
		made <- shake(t, raw, false, ourServer)
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client = shake(t, raw, true, ourClient)
	server = <-made
	if server == nil || client == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _, _ = server.Close(), client.Close() })
	for _, s := range []side{server, client} {
		_ = s.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return server, client
}

// shake makes one side. A server of crypto/tls sends tickets.
func shake(t testing.TB, raw net.Conn, client, ours bool) side {
	b := &below{Conn: raw, shaking: ours}
	s := &Secrets{}
	cfg := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate()}, SessionTicketsDisabled: ours && !client,
		ClientSessionCache: tls.NewLRUClientSessionCache(1), ServerName: "peer"}
	if ours {
		cfg.KeyLogWriter = s
	}
	wrap := tls.Server
	if client {
		wrap = tls.Client
	}
	conn := wrap(b, cfg)
	if err := conn.Handshake(); err != nil {
		t.Error(err)
		return nil
	}
	if !ours {
		return conn
	}
	b.shaking = false
	own, err := New(b, conn.ConnectionState(), client, s)
	if err != nil {
		t.Error(err)
		return nil
	}
	if *s != (Secrets{}) {
		t.Error("secrets are left")
	}
	return own
}

// TestBesideCryptoTLS: whatever is written by one side arrives at the other, in order, through any
// number of changes of keys, and then the end.
func TestBesideCryptoTLS(t *testing.T) {
	for _, ours := range [][2]bool{{true, true}, {true, false}, {false, true}} {
		server, client := pair(t, ours[0], ours[1])
		for _, s := range []side{server, client} {
			if c, ok := s.(*Conn); ok {
				c.out.most = 7
				c.Transport.(*below).most = 1000
			}
		}
		var wg sync.WaitGroup
		for i, s := range []side{server, client} {
			other := []side{client, server}[i]
			data := make([]byte, 2<<20)
			mathrand.NewChaCha8([32]byte{byte(i)}).Read(data)
			wg.Go(func() {
				r := mathrand.New(mathrand.NewPCG(uint64(i), 1))
				for rest := data; len(rest) > 0; {
					n := min(len(rest), 1+r.IntN(1<<(1+r.IntN(17))))
					if m, err := s.Write(rest[:n]); m != n || err != nil {
						t.Errorf("%v: %d of %d, %v", ours, m, n, err)
						return
					}
					rest = rest[n:]
				}
				if err := s.CloseWrite(); err != nil {
					t.Error(err)
				}
				if _, err := s.Write([]byte{1}); err == nil {
					t.Error("written after the end")
				}
			})
			wg.Go(func() {
				var got bytes.Buffer
				r := mathrand.New(mathrand.NewPCG(uint64(i), 2))
				for {
					p := make([]byte, 1+r.IntN(1<<(1+r.IntN(16))))
					n, err := other.Read(p)
					got.Write(p[:n])
					if err != nil {
						if err != io.EOF || !bytes.Equal(got.Bytes(), data) {
							t.Errorf("%v: %d of %d bytes, or others: %v", ours, got.Len(), len(data), err)
						}
						return
					}
				}
			})
		}
		wg.Wait()
		for _, s := range []side{server, client} {
			if c, ok := s.(*Conn); ok && c.out.sequence > c.out.most+gathered+1 {
				t.Errorf("%v: a key protects %d records", ours, c.out.sequence)
			}
		}
	}
}

// TestLongerKeys: with SHA-384 secrets are longer, and so are keys.
func TestLongerKeys(t *testing.T) {
	state := tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_256_GCM_SHA384}
	a, b := net.Pipe()
	var sides [2]*Conn
	for i, raw := range []net.Conn{a, b} {
		s := &Secrets{client: secret{length: maxSecret}, server: secret{bytes: [maxSecret]byte{1}, length: maxSecret}}
		var err error
		if sides[i], err = New(&below{Conn: raw}, state, i == 1, s); err != nil {
			t.Fatal(err)
		}
		sides[i].out.most = 2
	}
	go func() {
		for i := range byte(10) {
			_, _ = sides[0].Write([]byte{i})
		}
	}()
	p := make([]byte, 100)
	for i := range byte(10) {
		if n, err := sides[1].Read(p); n != 1 || p[0] != i || err != nil {
			t.Fatal(n, p[0], err)
		}
	}
	for _, other := range []tls.ConnectionState{
		{Version: tls.VersionTLS12, CipherSuite: tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		{Version: tls.VersionTLS13, CipherSuite: tls.TLS_CHACHA20_POLY1305_SHA256},
		{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}, // a shorter hash
	} {
		s := &Secrets{client: secret{length: maxSecret}, server: secret{length: maxSecret}}
		if _, err := New(&below{Conn: a}, other, true, s); !errors.Is(err, ErrNotHere) || *s != (Secrets{}) {
			t.Errorf("%x: %v", other.CipherSuite, err)
		}
	}
}

// TestUpdateRequested: the peer asks for other keys, and has them before the next data.
func TestUpdateRequested(t *testing.T) {
	for _, ourClient := range []bool{true, false} {
		server, client := pair(t, true, ourClient)
		asking := server.(*Conn)
		for range 3 * maxIdle {
			asking.out.mu.Lock()
			err := asking.out.write(asking.Transport, typeHandshake, []byte{messageKeyUpdate, 0, 0, 1, 1})
			if err == nil {
				err = asking.out.update()
			}
			asking.out.mu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			before := asking.in.secret
			for _, way := range [][2]side{{server, client}, {client, server}} {
				if _, err := way[0].Write([]byte("data")); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 10)
				if n, err := way[1].Read(got); string(got[:n]) != "data" || err != nil {
					t.Fatalf("%q, %v", got[:n], err)
				}
			}
			if asking.in.secret == before {
				t.Fatal("the peer goes on with its old key")
			}
		}
	}
}

// TestRefusedRecords: what is no record of data, or breaks the protocol, ends both directions, and
// the peer is told why.
func TestRefusedRecords(t *testing.T) {
	ticket := func(size int) []byte {
		return append([]byte{messageNewSessionTicket, 0, byte(size >> 8), byte(size)}, make([]byte, size)...)
	}
	type rec struct {
		t       contentType
		content []byte
	}
	many := func(r rec, n int) (all []rec) {
		for range n {
			all = append(all, r)
		}
		return all
	}
	empty, update := rec{typeData, nil}, rec{typeHandshake, []byte{messageKeyUpdate, 0, 0, 1, 0}}
	for _, tc := range []struct {
		name    string
		records []rec
		raw     func([]byte) []byte // changes the bytes of the last
		alert   tls.AlertError
	}{
		{"changed", []rec{{typeData, []byte("x")}}, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, alertBadRecordMAC},
		{"another header", []rec{{typeData, []byte("x")}}, func(b []byte) []byte { b[2] = 4; return b }, alertProtocolVersion},
		{"not protected", []rec{{typeData, []byte("x")}}, func([]byte) []byte { return []byte{byte(typeAlert), 3, 3, 0, 2, 1, 0} }, alertUnexpectedMessage},
		{"change of ciphers", []rec{{typeData, []byte("x")}}, func([]byte) []byte { return []byte{byte(typeChangeCipherSpec), 3, 3, 0, 1, 1} }, alertUnexpectedMessage},
		{"change of ciphers, protected", []rec{{typeChangeCipherSpec, []byte{1}}}, nil, alertUnexpectedMessage},
		{"too long", []rec{{typeData, []byte("x")}}, func(b []byte) []byte { b[3], b[4] = 0x41, 1; return b }, alertRecordOverflow},
		{"too short", []rec{{typeData, []byte("x")}}, func(b []byte) []byte { b[3], b[4] = 0, 16; return b }, alertBadRecordMAC},
		{"content too long", []rec{{typeData, make([]byte, maxPlain+1)}}, nil, alertRecordOverflow},
		{"content and padding too long", []rec{{0, append([]byte{'x', byte(typeData)}, make([]byte, maxPlain)...)}}, nil, alertRecordOverflow},
		{"no content", []rec{{0, nil}}, nil, alertUnexpectedMessage},
		{"only padding", []rec{{0, make([]byte, 100)}}, nil, alertUnexpectedMessage},
		{"unknown type", []rec{{24, []byte("x")}}, nil, alertUnexpectedMessage},
		{"alert of another size", []rec{{typeAlert, []byte{1}}}, nil, alertUnexpectedMessage},
		{"empty handshake", []rec{{typeHandshake, nil}}, nil, alertUnexpectedMessage},
		{"ClientHello", []rec{{typeHandshake, []byte{1, 0, 0, 1, 0}}}, nil, alertUnexpectedMessage},
		{"CertificateRequest", []rec{{typeHandshake, []byte{13, 0, 0, 3, 0, 0, 0}}}, nil, alertUnexpectedMessage},
		{"data within a message", []rec{{typeHandshake, update.content[:3]}, {typeData, []byte("x")}}, nil, alertUnexpectedMessage},
		{"alert within a message", []rec{{typeHandshake, update.content[:2]}, {typeAlert, []byte{1, 0}}}, nil, alertUnexpectedMessage},
		{"empty data within a message", []rec{{typeHandshake, update.content[:2]}, empty}, nil, alertUnexpectedMessage},
		{"long update", []rec{{typeHandshake, []byte{messageKeyUpdate, 0, 0, 2, 0, 0}}}, nil, alertUnexpectedMessage},
		{"unknown update", []rec{{typeHandshake, []byte{messageKeyUpdate, 0, 0, 1, 2}}}, nil, alertIllegalParameter},
		{"something behind an update", []rec{{typeHandshake, append(bytes.Clone(update.content), messageKeyUpdate)}}, nil, alertUnexpectedMessage},
		{"endless empty records", many(empty, maxIdle+1), nil, alertUnexpectedMessage},
		{"endless user_canceled", many(rec{typeAlert, []byte{1, alertUserCanceled}}, maxIdle+1), nil, alertUnexpectedMessage},
		{"endless tickets", many(rec{typeHandshake, ticket(100)}, maxIdle+1), nil, alertUnexpectedMessage},
		{"endless tickets in one record", []rec{{typeHandshake, bytes.Repeat(ticket(10), maxIdle+1)}}, nil, alertUnexpectedMessage},
		{"ticket without end", []rec{{typeHandshake, []byte{messageNewSessionTicket, 255, 255, 255}}}, nil, alertUnexpectedMessage},
	} {
		for _, room := range []int{1, 40 << 10} {
			server, client := pair(t, true, true)
			bad, c := server.(*Conn), client.(*Conn)
			for i, r := range tc.records {
				b := bad.out.seal(make([]byte, 0, 20<<10), r.t, r.content)
				if tc.raw != nil && i == len(tc.records)-1 {
					b = tc.raw(b)
				}
				if _, err := bad.Transport.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			_ = bad.Transport.(*below).Conn.(*net.TCPConn).CloseWrite() // who takes it all waits for no more
			_, err := c.Read(make([]byte, room))
			if got := tls.AlertError(0); !errors.As(err, &got) || got != tc.alert {
				t.Fatalf("%s: %v", tc.name, err)
			}
			if _, again := c.Read(make([]byte, room)); again != err {
				t.Errorf("%s: read on: %v", tc.name, again)
			}
			if n, err := c.Write([]byte("x")); n != 0 || err == nil {
				t.Errorf("%s: written after that", tc.name)
			}
			_, err = bad.Read(make([]byte, 10))
			if op := (*net.OpError)(nil); !errors.As(err, &op) || op.Op != "remote error" || op.Err != tc.alert {
				t.Errorf("%s: the peer was told %v", tc.name, err)
			}
		}
	}
}

// TestServerRefusesTickets: they are a server's to give.
func TestServerRefusesTickets(t *testing.T) {
	server, client := pair(t, true, true)
	bad := client.(*Conn)
	_, _ = bad.Transport.Write(bad.out.seal(make([]byte, 0, 1000), typeHandshake, []byte{messageNewSessionTicket, 0, 0, 1, 0}))
	_, err := server.Read(make([]byte, 10))
	if got := tls.AlertError(0); !errors.As(err, &got) || got != alertUnexpectedMessage {
		t.Error(err)
	}
}

// TestManyTickets: as many as crypto/tls takes are taken.
func TestManyTickets(t *testing.T) {
	ticket := []byte{messageNewSessionTicket, 0, 0, 2, 9, 9}
	for name, records := range map[string][][]byte{
		"each in a record": slices.Repeat([][]byte{ticket}, maxIdle), "all in one": {bytes.Repeat(ticket, maxIdle)},
	} {
		server, client := pair(t, true, true)
		s := server.(*Conn)
		for _, r := range records {
			_, _ = s.Transport.Write(s.out.seal(make([]byte, 0, 1000), typeHandshake, r))
		}
		_, _ = s.Write([]byte("data"))
		p := make([]byte, 10)
		if n, err := client.Read(p); string(p[:n]) != "data" || err != nil {
			t.Errorf("%s: %q, %v", name, p[:n], err)
		}
	}
}

// TestDividedMessages: messages may lie across records, and several in one.
func TestDividedMessages(t *testing.T) {
	server, client := pair(t, true, true)
	s, c := server.(*Conn), client.(*Conn)
	send := func(t contentType, content []byte) {
		_, _ = s.Transport.Write(s.out.seal(make([]byte, 0, 1000), t, content))
	}
	messages := append(bytes.Repeat([]byte{messageNewSessionTicket, 0, 0, 3, 1, 2, 3}, 2), messageKeyUpdate, 0, 0, 1, 1)
	for _, cut := range [][]int{{1, 5}, {3, 8, 12, 15}, {len(messages)}} {
		at := 0
		for _, next := range append(cut, len(messages)) {
			if next > at {
				send(typeHandshake, messages[at:next])
			}
			at = next
		}
		if err := s.out.update(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("data")); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 10)
		if n, err := c.Read(p); string(p[:n]) != "data" || err != nil {
			t.Fatalf("%v: %q, %v", cut, p[:n], err)
		}
		if !c.out.owed.Load() {
			t.Fatal("the peer's wish for other keys is forgotten")
		}
		c.out.owed.Store(false)
	}
}

// TestEnds: the end is the peer's word, or a FIN between two records; within one it is a loss.
func TestEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		last []byte
		err  error
	}{
		{"close_notify", nil, io.EOF},
		{"FIN between records", []byte{}, io.EOF},
		{"FIN within a header", []byte{byte(typeData), 3}, io.ErrUnexpectedEOF},
		{"FIN within a record", []byte{byte(typeData), 3, 3, 0, 100, 1, 2}, io.ErrUnexpectedEOF},
	} {
		server, client := pair(t, true, true)
		s := server.(*Conn)
		if _, err := s.Write([]byte("data")); err != nil {
			t.Fatal(err)
		}
		if tc.last == nil {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != net.ErrClosed {
				t.Error(err)
			}
			if _, err := s.Write([]byte("x")); err != net.ErrClosed {
				t.Errorf("written after Close: %v", err)
			}
		} else {
			_, _ = s.Transport.Write(tc.last)
			_ = s.Transport.Close()
		}
		got, err := io.ReadAll(client)
		if tc.err == io.EOF {
			tc.err = nil
		}
		if string(got) != "data" || err != tc.err {
			t.Errorf("%s: %q, %v", tc.name, got, err)
		}
	}
}

// TestDeadlines: a read goes on after its time has passed, a write does not.
func TestDeadlines(t *testing.T) {
	server, client := pair(t, true, true)
	s, c := server.(*Conn), client.(*Conn)
	whole := s.out.seal(make([]byte, 0, 100), typeData, []byte("data"))
	_, _ = s.Transport.Write(whole[:7])
	p := make([]byte, 10)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(p); !isTimeout(err) {
		t.Fatal(err)
	}
	if c.in.pooled != nil || len(c.in.buf) != 7 && len(c.in.buf) != 0 {
		t.Errorf("%d bytes are kept in a pool's memory of a connection that waits", len(c.in.buf))
	}
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, _ = s.Transport.Write(whole[7:])
	if n, err := c.Read(p); string(p[:n]) != "data" || err != nil {
		t.Fatalf("%q, %v", p[:n], err)
	}
	_ = s.SetWriteDeadline(time.Now().Add(-time.Second))
	if _, err := s.Write(p); !isTimeout(err) {
		t.Fatal(err)
	}
	_ = s.SetWriteDeadline(time.Time{})
	_, err := s.Write(p)
	if e, ok := err.(interface{ Temporary() bool }); !ok || e.Temporary() {
		t.Errorf("written after a write that was cut: %v", err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// dripped is a Transport that has a byte each time it is asked, and nothing in between.
type dripped struct {
	Transport
	bytes []byte
	dry   bool
}

func (d *dripped) ReadLent(l Buffers) (int, error) {
	if d.dry = !d.dry; d.dry {
		l.DropBuffer()
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(l.TakeBuffer()[:1], d.bytes)
	d.bytes = d.bytes[n:]
	return n, nil
}

// TestDrip: a record that comes byte by byte is whole in the end, and costs little more than its
// memory: it is not moved for each byte.
func TestDrip(t *testing.T) {
	server, client := pair(t, true, true)
	s, c := server.(*Conn), client.(*Conn)
	data := bytes.Repeat([]byte("data"), maxPlain/4)
	var records []byte
	for range 3 {
		records = append(records, s.out.seal(make([]byte, 0, sealedSize), typeData, data)...)
	}
	c.Transport = &dripped{Transport: c.Transport, bytes: records}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p := make([]byte, maxPlain+1)
	got := 0
	for reads := 0; got < 3*len(data); reads++ {
		n, err := c.Read(p)
		if n > 0 && !bytes.Equal(p[:n], data) || n == 0 && !isTimeout(err) || reads > 3*len(records) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		got += n
	}
	runtime.ReadMemStats(&after)
	// A record that were moved for each byte would be thousands of them. Under the race detector
	// sync.Pool loses some of what it is given.
	if size := after.TotalAlloc - before.TotalAlloc; size > 3*8*sealedSize {
		t.Errorf("%d bytes were allocated for three records", size)
	}
	if c.in.buf != nil || c.in.pooled != nil {
		t.Error("memory is kept")
	}
}

// TestNoAllocations: records are read and written in memory that is there.
func TestNoAllocations(t *testing.T) {
	server, client := pair(t, true, true)
	small, p := []byte("a message"), make([]byte, 20<<10)
	for _, s := range []side{server, client} {
		_ = s.SetDeadline(time.Time{})
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := server.Write(small); err != nil {
			t.Fatal(err)
		}
		if n, err := client.Read(p); n != len(small) || err != nil {
			t.Fatal(n, err)
		}
	}); n >= 1 {
		t.Errorf("%v allocations", n)
	}
	if c := client.(*Conn); c.in.pooled != nil || c.in.buf != nil {
		t.Error("memory is kept that has nothing in it")
	}
}
