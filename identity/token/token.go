// Package token is how a host joins: single-use tokens, and the records of what
// a joined node may be.
//
// A token is "hbt1.", base64url of a JSON object with what is not secret (where
// the control plane is, its signer's pin, the token's id), a dot, and the secret.
// The control plane stores the secret's hash only.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/identity/internal/strictjson"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

const (
	prefix      = "hbt1"
	secretBytes = 32
	idBytes     = 10
	// maxText bounds what is read as a token.
	maxText = 16 << 10
)

// Token is a token in the hands of its maker or its holder. It prints, logs and
// marshals without its secret.
type Token struct {
	ID string
	// Addresses, host:port, are where the control plane is reached.
	Addresses []string
	// Pin is of the signer's key of the control plane that made the token.
	Pin trust.Pin
	// secret is a function because fmt reaches the unexported fields of a struct
	// that holds a Token, past all methods; a pointer it follows for some verbs,
	// of a function it prints the address.
	secret func() [secretBytes]byte
}

type tokenJSON struct {
	Addresses []string  `json:"addrs"`
	Pin       trust.Pin `json:"pin"`
	ID        string    `json:"id"`
}

var encoding = base64.RawURLEncoding.Strict()

// Parse reads the text form. Its errors never quote the text.
func Parse(s string) (Token, error) {
	t, err := parse(strings.TrimSpace(s))
	if err != nil {
		return Token{}, fmt.Errorf("token: %w: copy the whole line that `hauberk token create` printed", err)
	}
	return t, nil
}

func parse(s string) (Token, error) {
	if len(s) > maxText {
		return Token{}, fmt.Errorf("it has %d bytes, at most %d are read", len(s), maxText)
	}
	parts := strings.Split(s, ".")
	if parts[0] != prefix {
		return Token{}, fmt.Errorf("it does not begin with %q", prefix+".")
	}
	if len(parts) != 3 {
		return Token{}, fmt.Errorf("it has %d parts, a token has 3", len(parts))
	}
	// The library skips line ends inside base64.
	if strings.ContainsAny(s, "\r\n") {
		return Token{}, errors.New("it is broken into lines")
	}
	text, err := encoding.DecodeString(parts[1])
	if err != nil {
		return Token{}, errors.New("its middle part is not base64url")
	}
	var in tokenJSON
	if err := strictjson.Unmarshal(text, &in); err != nil {
		return Token{}, fmt.Errorf("its middle part: %w", err)
	}
	secret, err := encoding.DecodeString(parts[2])
	if err != nil || len(secret) != secretBytes {
		return Token{}, errors.New("its last part is cut off or damaged")
	}
	if !validID(in.ID) {
		return Token{}, errors.New("its id is malformed")
	}
	if in.Pin.IsZero() {
		return Token{}, errors.New("it pins no signer")
	}
	if err := checkAddresses(in.Addresses); err != nil {
		return Token{}, err
	}
	return Token{ID: in.ID, Addresses: in.Addresses, Pin: in.Pin, secret: keep([secretBytes]byte(secret))}, nil
}

// Reveal returns the text form, secret included: for the one who asked for the
// token, once.
func (t Token) Reveal() string {
	if t.secret == nil {
		return t.String()
	}
	return t.public() + "." + encoding.EncodeToString(t.Secret())
}

// Secret returns the secret, for the Join request; nil in a token without one.
func (t Token) Secret() []byte {
	if t.secret == nil {
		return nil
	}
	secret := t.secret()
	return secret[:]
}

func keep(secret [secretBytes]byte) func() [secretBytes]byte {
	return func() [secretBytes]byte { return secret }
}

func (t Token) public() string {
	text, err := json.Marshal(tokenJSON{t.Addresses, t.Pin, t.ID})
	if err != nil {
		// Strings and a pin always marshal.
		panic(err)
	}
	return prefix + "." + encoding.EncodeToString(text)
}

// String names the token by its id.
func (t Token) String() string { return prefix + "." + t.ID + ".REDACTED" }

// Format keeps every verb from reaching the secret.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue implements slog.LogValuer.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText keeps encoders from reaching the secret.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

func newID() string {
	var b [idBytes]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// validID also keeps an id that came over the network from naming a path.
func validID(id string) bool {
	return len(id) == 2*idBytes && strings.Trim(id, "0123456789abcdef") == ""
}

func hashOf(secret []byte) [sha256.Size]byte { return sha256.Sum256(secret) }

func checkAddresses(addresses []string) error {
	if len(addresses) == 0 {
		return errors.New("it has no address of a control plane")
	}
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return fmt.Errorf("address %q: write host:port", a)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
			return fmt.Errorf("address %q: write host:port, with a port from 1 to 65535", a)
		}
	}
	return nil
}
