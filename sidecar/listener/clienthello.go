package listener

import (
	"errors"
	"slices"
	"strings"
)

// maxClientHello bounds what the inspector looks at, records and their headers included. A
// hello with post-quantum key shares is about 1.8 KB.
const maxClientHello = 16 << 10

var (
	// errNotTLS means that the bytes are no ClientHello.
	errNotTLS = errors.New("not a TLS ClientHello")
	// errMoreHello means that what is there is the beginning of one.
	errMoreHello = errors.New("ClientHello is incomplete")
	// errBadHello means that it began as one and broke the format.
	errBadHello = errors.New("malformed ClientHello")
	// errLongHello means that it is longer than is looked at.
	errLongHello = errors.New("ClientHello is too long")
)

// clientHello is what a filter chain is chosen by.
type clientHello struct {
	serverName string // lower case
	alpn       protocolNames
}

// protocolNames is a ProtocolNameList (RFC 7301 3.1) as it is sent: each name after a byte
// with its length. A connection keeps it, and one of names of two bytes would be ten times
// as large taken to pieces.
type protocolNames string

// each yields the names in order.
func (p protocolNames) each(yield func(string) bool) {
	for len(p) > 0 {
		end := 1 + int(p[0])
		if !yield(string(p[1:end])) {
			return
		}
		p = p[end:]
	}
}

// protocolName is a list of one name, of 255 bytes at most.
func protocolName(name string) protocolNames {
	return protocolNames([]byte{byte(len(name))}) + protocolNames(name)
}

// parseClientHello reads a ClientHello from the first bytes of a connection (RFC
// 8446 4.1.2 and 5.1, RFC 6066 3, RFC 7301 3.1). The message may be spread over
// several records. It is no more lenient than a server of TLS: a proxy that does not end TLS
// chooses by what is read here, and the server behind it reads it again.
func parseClientHello(b []byte) (clientHello, error) {
	message, err := firstMessage(b)
	if err != nil {
		return clientHello{}, err
	}
	r := reader{message}
	if !r.skip(2 + 32) { // legacy_version, random
		return clientHello{}, errBadHello
	}
	session, ok1 := r.vector8() // legacy_session_id
	ciphers, ok2 := r.vector16()
	compressions, ok3 := r.vector8() // legacy_compression_methods
	if !ok1 || !ok2 || !ok3 || len(session) > 32 || len(ciphers) == 0 || len(ciphers)%2 != 0 || len(compressions) == 0 {
		return clientHello{}, errBadHello
	}
	if len(r.b) == 0 {
		return clientHello{}, nil // TLS 1.2 without extensions
	}
	extensions, ok := r.vector16()
	if !ok || len(r.b) != 0 {
		return clientHello{}, errBadHello
	}
	return parseExtensions(extensions)
}

// beginning tells by a connection's first bytes whether it can be TLS. Servers take more than a
// handshake record of version 3: they pass over warnings, and some over the version. Such bytes
// are malformed, and not plaintext, for which another chain and no name would count.
func beginning(b []byte) error {
	const (
		alertRecord, handshakeRecord = 21, 22
		majorsOfTLS                  = 0x10 // as crypto/tls has it
		alert, level, warning        = 7, 5, 1
	)
	switch {
	case len(b) == 0:
		return errMoreHello
	case b[0] != handshakeRecord && b[0] != alertRecord, len(b) > 1 && b[1] >= majorsOfTLS:
		return errNotTLS
	case b[0] == handshakeRecord && (len(b) < 2 || b[1] == 3):
		return nil
	case b[0] == handshakeRecord:
		return errBadHello
	case len(b) > 3 && b[3] != 0, len(b) > 4 && b[4] != 2, len(b) > level && b[level] != warning:
		return errNotTLS
	case len(b) < alert:
		return errMoreHello
	}
	return errBadHello
}

// firstMessage joins the payload of handshake records until the first message is
// whole, and returns its body.
func firstMessage(b []byte) ([]byte, error) {
	const (
		recordHeader, messageHeader = 5, 4
		handshakeRecord             = 22
		clientHelloMessage          = 1
		maxRecord                   = 1 << 14
	)
	var joined []byte
	for {
		if joined == nil {
			if err := beginning(b); err != nil {
				return nil, err
			}
		}
		if len(b) > 0 && b[0] != handshakeRecord || len(b) > 1 && b[1] != 3 {
			return nil, errBadHello
		}
		if len(b) < recordHeader {
			return nil, errMoreHello
		}
		n := int(b[3])<<8 | int(b[4])
		if n == 0 || n > maxRecord {
			return nil, errBadHello
		}
		part := b[recordHeader:min(len(b), recordHeader+n)]
		if joined == nil && len(part) > 0 && part[0] != clientHelloMessage {
			return nil, errNotTLS
		}
		joined = append(joined, part...)
		if len(joined) >= messageHeader {
			size := int(joined[1])<<16 | int(joined[2])<<8 | int(joined[3])
			if size > maxClientHello {
				return nil, errBadHello
			}
			if len(joined) >= messageHeader+size {
				return joined[messageHeader : messageHeader+size], nil
			}
		}
		if len(part) < n {
			return nil, errMoreHello
		}
		b = b[recordHeader+n:]
	}
}

// parseExtensions refuses what is there twice, whatever it is (RFC 8446 4.2): another parser
// may take the second one.
func parseExtensions(b []byte) (clientHello, error) {
	const serverName, alpn = 0, 16
	var hello clientHello
	var few [32]int
	kinds := few[:0]
	for r := (reader{b}); len(r.b) > 0; {
		kind, ok := r.uint16()
		body, ok2 := r.vector16()
		if !ok || !ok2 {
			return clientHello{}, errBadHello
		}
		kinds = append(kinds, kind)
		var err error
		switch kind {
		case serverName:
			hello.serverName, err = parseServerName(body)
		case alpn:
			hello.alpn, err = parseALPN(body)
		}
		if err != nil {
			return clientHello{}, err
		}
	}
	slices.Sort(kinds)
	for i := 1; i < len(kinds); i++ {
		if kinds[i] == kinds[i-1] {
			return clientHello{}, errBadHello
		}
	}
	return hello, nil
}

// parseServerName takes a list of one name. Another kind of name than host_name was never
// defined, and where its end is cannot be known (RFC 6066 3).
func parseServerName(b []byte) (string, error) {
	const hostName, longest = 0, 255
	r := reader{b}
	list, ok := r.vector16()
	if !ok || len(r.b) != 0 {
		return "", errBadHello
	}
	r = reader{list}
	kind, ok := r.uint8()
	name, ok2 := r.vector16()
	if !ok || !ok2 || len(r.b) != 0 || kind != hostName || len(name) == 0 || len(name) > longest {
		return "", errBadHello
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return "", errBadHello
		}
	}
	return strings.ToLower(string(name)), nil
}

func parseALPN(b []byte) (protocolNames, error) {
	r := reader{b}
	list, ok := r.vector16()
	if !ok || len(r.b) != 0 || len(list) == 0 {
		return "", errBadHello
	}
	for r := (reader{list}); len(r.b) > 0; {
		p, ok := r.vector8()
		if !ok || len(p) == 0 {
			return "", errBadHello
		}
	}
	return protocolNames(list), nil
}

// reader reads TLS presentation language.
type reader struct{ b []byte }

func (r *reader) skip(n int) bool {
	if len(r.b) < n {
		return false
	}
	r.b = r.b[n:]
	return true
}

func (r *reader) uint8() (int, bool) {
	if len(r.b) < 1 {
		return 0, false
	}
	v := int(r.b[0])
	r.b = r.b[1:]
	return v, true
}

func (r *reader) uint16() (int, bool) {
	if len(r.b) < 2 {
		return 0, false
	}
	v := int(r.b[0])<<8 | int(r.b[1])
	r.b = r.b[2:]
	return v, true
}

func (r *reader) take(n int) ([]byte, bool) {
	if len(r.b) < n {
		return nil, false
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v, true
}

func (r *reader) vector8() ([]byte, bool) {
	n, ok := r.uint8()
	if !ok {
		return nil, false
	}
	return r.take(n)
}

func (r *reader) vector16() ([]byte, bool) {
	n, ok := r.uint16()
	if !ok {
		return nil, false
	}
	return r.take(n)
}
