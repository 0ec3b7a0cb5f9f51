package secrets

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// first reads the file of a secret that is followed from now on.
func (e *entry) first() error {
	e.file.Reading(e.ref.File)
	b, err := tlscontext.ReadFile(e.ref.File)
	if err != nil {
		return err
	}
	d, err := e.decode(b)
	if err != nil {
		return fmt.Errorf("%s: %w", e.ref.File, err)
	}
	e.sum = sha256.Sum256(b)
	e.take(d)
	return nil
}

// again reads the file, and tells whether there is another secret in it. By its bytes,
// not by its times: a file may be replaced within the clock's resolution.
func (e *entry) again() bool {
	e.file.Reading(e.ref.File)
	b, err := tlscontext.ReadFile(e.ref.File)
	sum := sha256.Sum256(b)
	same := err == nil && sum == e.sum // the last good one
	var d *tlscontext.Discovered
	if err == nil && !same {
		d, err = e.decode(b)
	}
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	switch {
	case err != nil:
		e.gone(err)
	case same:
		if e.said != "" {
			e.store.log.Info("secret can be used again", "secret", e.ref.Name, "source", e.source())
		}
		e.said, e.lost = "", time.Time{}
	default:
		e.sum = sum
		e.take(d)
		return true
	}
	return false
}

func (e *entry) decode(b []byte) (d *tlscontext.Discovered, err error) {
	err = panics.Refuse(panics.Configuration, func() (err error) {
		if d, err = config.SecretFile(b, e.ref.Name); err == nil {
			err = d.CheckFor(e.ref)
		}
		return err
	})
	return d, err
}
