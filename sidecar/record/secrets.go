package record

import (
	"bytes"
	"encoding/hex"
	"errors"
)

// Secrets hears the traffic secrets of one connection: it is the KeyLogWriter of the
// configuration that this connection alone has. They stay in it until New has taken them.
//
// crypto/tls has no other way to tell them but that of QUIC, whose handshakes no other peer
// understands. It is used within one handshake, by one goroutine.
type Secrets struct{ client, server secret }

// secret is a traffic secret (RFC 8446 7.1), as long as the suite's hash; empty before it is known.
type secret struct {
	bytes  [maxSecret]byte
	length int
}

// maxSecret is the length of SHA-384, the longest hash of a suite.
const maxSecret = 48

// errKeyLog has no word of what was logged.
var errKeyLog = errors.New("record: a line of the key log is not understood")

// Write implements io.Writer for lines of the key log's format (draft-ietf-tls-keylogfile 2):
// a label, the client's random and a secret, of which the last two are hexadecimal. Labels of
// other secrets are passed over. An error ends the handshake.
func (s *Secrets) Write(line []byte) (int, error) {
	label, rest, _ := bytes.Cut(line, []byte(" "))
	var into *secret
	switch string(label) {
	case "CLIENT_TRAFFIC_SECRET_0":
		into = &s.client
	case "SERVER_TRAFFIC_SECRET_0":
		into = &s.server
	default:
		return len(line), nil
	}
	_, digits, _ := bytes.Cut(bytes.TrimSuffix(rest, []byte("\n")), []byte(" "))
	if n := hex.DecodedLen(len(digits)); n == 0 || n > maxSecret || into.length != 0 {
		return 0, errKeyLog
	}
	n, err := hex.Decode(into.bytes[:], digits)
	if err != nil {
		clear(into.bytes[:])
		return 0, errKeyLog
	}
	into.length = n
	return len(line), nil
}

// Forget drops them.
func (s *Secrets) Forget() { *s = Secrets{} }
