package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
)

// CheckKey says whether a key may be certified, or sign. Whoever verifies with a
// stranger's key asks first: RSA costs with the key's size, which only the size of
// the request bounds.
func CheckKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("an ECDSA key on %s is not taken: use P-256 or P-384", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 8192 {
			return fmt.Errorf("an RSA key of %d bits is not taken: use 2048 to 8192, or better P-256", bits)
		}
		return nil
	}
	return fmt.Errorf("a key of type %T is not taken: use P-256", public)
}
