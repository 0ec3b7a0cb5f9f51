package record

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
)

// FuzzBesideCryptoTLS: what a script has a peer send is data and an end to both, the same.
func FuzzBesideCryptoTLS(f *testing.F) {
	f.Add([]byte("\x00\x10some data\x01\x00"))
	f.Add([]byte{stepData, 5, stepUpdate, 0, stepData, 200, stepUpdate, 1, stepData, 1, stepAlert, 0})
	f.Add([]byte{stepDivided, 2, stepData, 9, stepEmpty, 0, stepAlert, 90, stepData, 9, stepBroken, 3})
	f.Add([]byte{stepMessage, 1, stepData, 9})
	f.Add([]byte{stepData, 5, stepBare, 22})
	f.Add([]byte{stepCut, 7})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > maxIdle {
			t.Skip("records without data are counted otherwise")
		}
		var got [2][]byte
		var errs [2]string
		for i, ours := range []bool{true, false} {
			server, client := pair(t, true, ours)
			play(server.(*Conn), script)
			var err error
			got[i], err = io.ReadAll(client)
			errs[i] = whatEnded(err)
			_, _ = server.Close(), client.Close()
		}
		if !bytes.Equal(got[0], got[1]) || errs[0] != errs[1] {
			t.Errorf("we read %d bytes and %s, crypto/tls %d and %s", len(got[0]), errs[0], len(got[1]), errs[1])
		}
	})
}

// whatEnded tells ends apart as far as both should.
func whatEnded(err error) string {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "remote error" {
		return op.Error()
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "cut"
	}
	if err == nil {
		return "end"
	}
	return "refused"
}

// Steps of a script, each followed by a byte.
const (
	stepData    = iota
	stepAlert   // of this number
	stepUpdate  // of keys, asked for or not
	stepDivided // update, after so many bytes
	stepMessage // of the handshake protocol, of this kind, which has no place here
	stepEmpty   // record of data
	stepBroken  // byte of a record
	stepBare    // record that nothing protects, of this type
	stepCut     // record of which so many bytes come
	steps
)

// play sends what a script says, and a FIN.
func play(c *Conn, script []byte) {
	send := func(t contentType, content ...byte) {
		_, _ = c.Transport.Write(c.out.seal(make([]byte, 0, 1000), t, content))
	}
	defer func() { _ = c.Transport.(*below).Conn.(*net.TCPConn).CloseWrite() }()
	for ; len(script) >= 2; script = script[2:] {
		arg := script[1]
		switch script[0] % steps {
		case stepData:
			send(typeData, bytes.Repeat([]byte{arg}, 1+int(arg))...)
		case stepAlert:
			send(typeAlert, arg%3, arg)
		case stepUpdate:
			send(typeHandshake, messageKeyUpdate, 0, 0, 1, arg%2)
			_ = c.out.update()
		case stepDivided:
			update, at := []byte{messageKeyUpdate, 0, 0, 1, 0}, 1+int(arg%4)
			send(typeHandshake, update[:at]...)
			send(typeHandshake, update[at:]...)
			_ = c.out.update()
		case stepMessage:
			if arg != messageNewSessionTicket { // of which crypto/tls reads more
				send(typeHandshake, arg, 0, 0, 1, 2)
			}
		case stepEmpty:
			send(typeData)
		case stepBroken:
			b := c.out.seal(make([]byte, 0, 100), typeData, []byte("data"))
			b[headerSize+int(arg)%(len(b)-headerSize)] ^= 0x80
			_, _ = c.Transport.Write(b)
		case stepBare:
			if contentType(arg) != typeChangeCipherSpec { // which crypto/tls takes at any time
				_, _ = c.Transport.Write([]byte{arg, 3, 3, 0, 2, 1, 0})
			}
		case stepCut:
			b := c.out.seal(make([]byte, 0, 100), typeData, []byte("data"))
			_, _ = c.Transport.Write(b[:int(arg)%len(b)])
			return
		}
	}
}

// FuzzReceived: no bytes that no peer has protected are anything.
func FuzzReceived(f *testing.F) {
	f.Add([]byte{23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}, 3)
	f.Add([]byte{21, 3, 3, 0, 2, 1, 0}, 1)
	f.Add([]byte{23, 3, 3, 65, 1}, 5)
	state := tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}
	f.Fuzz(func(t *testing.T, received []byte, most int) {
		a, b := net.Pipe()
		go func() {
			_, _ = b.Write(received)
			_ = b.Close()
		}()
		c, err := New(&below{Conn: a, most: max(1, most)}, state, true, &Secrets{client: secret{length: 32}, server: secret{length: 32}})
		if err != nil {
			t.Fatal(err)
		}
		c.out.silent = true // nobody reads
		if n, err := c.Read(make([]byte, 100)); n != 0 || err == nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		_ = a.Close()
		if c.in.pooled != nil {
			t.Error("memory is kept")
		}
	})
}
