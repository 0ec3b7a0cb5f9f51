package hcm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sealer makes the records of a TLS 1.3 client with AES-128-GCM (RFC 8446 5.2, 7.2), which
// crypto/tls does not let anybody do.
type sealer struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func expandLabel(t *testing.T, secret []byte, label string, n int) []byte {
	t.Helper()
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 "+label)))
	info = append(info, "tls13 "+label+"\x00"...)
	b, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *sealer) rekey(t *testing.T, secret []byte) {
	b, err := aes.NewCipher(expandLabel(t, secret, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	if s.aead, err = cipher.NewGCM(b); err != nil {
		t.Fatal(err)
	}
	s.secret, s.seq, s.iv = secret, 0, expandLabel(t, secret, "iv", 12)
}

func (s *sealer) record(dst []byte, kind byte, p string) []byte {
	head := []byte{23, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(p)+1+s.aead.Overhead()))
	nonce := bytes.Clone(s.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^s.seq)
	s.seq++
	return s.aead.Seal(append(dst, head...), nonce, append([]byte(p), kind), head)
}

// keyUpdate asks for an update of the server's keys as well, which it answers.
func (s *sealer) keyUpdate(t *testing.T, dst []byte) []byte {
	dst = s.record(dst, 22, "\x18\x00\x00\x01\x01")
	s.rekey(t, expandLabel(t, s.secret, "traffic upd", 32))
	return dst
}

// TestKeyUpdatesNobodyReads: a client whose bytes are always there, and who does not read the
// answers to its key updates, has its time for a head as others have.
func TestKeyUpdatesNobodyReads(t *testing.T) {
	b := quiet(newBed(t))
	b.tls = &tls.Config{Certificates: []tls.Certificate{certificate(t, apiID)}, SessionTicketsDisabled: true, MinVersion: tls.VersionTLS13}
	b.cfg.RequestHeadersTimeout = 500 * time.Millisecond
	b.start()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	}}
	c, err := d.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var keys bytes.Buffer
	client := tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, KeyLogWriter: &keys})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if suite := client.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Fatal(tls.CipherSuiteName(suite))
	}
	var s sealer
	for line := range strings.Lines(keys.String()) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			s.rekey(t, secret)
		}
	}
	out := s.record(nil, 23, "GET / HTTP/1.1\r\nX: ")
	for range 10_000 { // crypto/tls takes few in a row
		for range 15 {
			out = s.keyUpdate(t, out)
		}
		out = s.record(out, 23, "a")
	}
	go func() { _, _ = c.Write(out) }()
	select {
	case <-b.finished:
	case <-time.After(20 * time.Second):
		b.mu.Lock()
		conn := b.conns[0]
		b.mu.Unlock()
		t.Error("the connection is held")
		_ = conn.Stream.Close() // it, too, would wait for the answer
	}
}
