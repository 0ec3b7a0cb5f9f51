package record

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// sealer is the writing half.
type sealer struct {
	protection
	mu sync.Mutex
	// most is how many records one key protects.
	most uint64
	// err is what ended it. silent: nothing more is said, and last is what came of the last words.
	err, last error
	silent    bool
	// owed: the peer has asked for new keys of ours. It is answered before the next data
	// (RFC 8446 4.6.3), by who writes that: who reads never waits for the peer to read.
	owed atomic.Bool
	// fault is what the peer has done. It is told of in place of anything else.
	fault atomic.Pointer[fault]
}

// fault is an alert that ends a connection, and our word for it.
type fault struct {
	alert byte
	err   error
}

func (s *sealer) start(of *suite, traffic *secret) error {
	s.most = mostRecords
	return s.protection.start(of, traffic)
}

// data protects p, of gatherSize at most, and writes it. mu is held. n counts what was in
// records that left whole. An error is the end: another may have left in part.
func (s *sealer) data(to Transport, p []byte) (n int, err error) {
	if len(p) <= maxPlain {
		if err := s.write(to, typeData, p); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	buf := gatherBuffers.Get().(*[gatherSize]byte)
	defer gatherBuffers.Put(buf)
	all := buf[:0]
	for rest := p; len(rest) > 0; {
		piece := rest[:min(len(rest), maxPlain)]
		all, rest = s.seal(all, typeData, piece), rest[len(piece):]
	}
	left, err := to.Write(all)
	if err != nil {
		s.err = permanent(err)
		return min(left/sealedSize*maxPlain, len(p)), s.err
	}
	return len(p), nil
}

// write protects one record (RFC 8446 5.2) and writes it. mu is held. An error is the end.
func (s *sealer) write(to Transport, t contentType, content []byte) error {
	buf := sealedBuffers.Get().(*[sealedSize]byte)
	defer sealedBuffers.Put(buf)
	if _, err := to.Write(s.seal(buf[:0], t, content)); err != nil {
		s.err = permanent(err)
		return s.err
	}
	return nil
}

// permanent says of a time that has run out that it cannot be tried again: a part of a record
// may have been written.
func permanent(err error) error {
	if e := net.Error(nil); errors.As(err, &e) {
		return &permanentError{e}
	}
	return err
}

type permanentError struct{ cause net.Error }

func (e *permanentError) Error() string { return e.cause.Error() }
func (e *permanentError) Unwrap() error { return e.cause }
func (e *permanentError) Timeout() bool { return e.cause.Timeout() }
func (*permanentError) Temporary() bool { return false }

// seal appends the record to dst, which has room for it.
func (s *sealer) seal(dst []byte, t contentType, content []byte) []byte {
	size := len(content) + 1 + tagSize
	at := len(dst)
	dst = append(dst, byte(typeData), 3, 3, byte(size>>8), byte(size))
	return s.aead.Seal(dst, s.next(), content, byte(t), dst[at:])
}

// updateKey tells the peer that another key follows, and goes on to that. Where it fails nothing
// can be said any more: whether the peer has heard it is not known.
func (s *sealer) updateKey(to Transport) error {
	const notRequested = 0
	err := s.write(to, typeHandshake, []byte{messageKeyUpdate, 0, 0, 1, notRequested})
	if err == nil {
		err = s.update()
	}
	if err != nil {
		s.err, s.last, s.silent = err, err, true
	}
	return err
}

// closeNotify says that no more follows, once, after an error of a write too: the transport may
// have kept the rest of what was cut, and if it has not, the peer finds a record that is broken.
func (s *sealer) closeNotify(to Transport) error {
	s.tell(to)
	if s.silent {
		if s.last == nil {
			_, s.last = to.Write(nil) // what was kept of the last words
		}
		return s.last
	}
	s.silent = true
	const warning = 1
	s.last = s.write(to, typeAlert, []byte{warning, alertCloseNotify})
	if s.err == nil {
		s.err = errWriteClosed
	}
	return s.last
}

// errWriteClosed is a write's after CloseWrite.
var errWriteClosed = errors.New("tls: protocol is shutdown")

// failure is why nothing more may be written, nil while it may.
func (s *sealer) failure() error {
	if f := s.fault.Load(); s.err == nil && f != nil {
		return f.err
	}
	return s.err
}

// unlock lets go of mu, and does not wait.
func (s *sealer) unlock(to Transport) {
	s.tell(to)
	s.mu.Unlock()
}

// tell tells the peer of its fault, if there is one. mu is held.
func (s *sealer) tell(to Transport) {
	f := s.fault.Load()
	if f == nil || s.silent {
		return
	}
	s.silent = true
	if s.err == nil {
		s.err = f.err
	}
	const fatal = 2
	to.WriteLater(s.seal(make([]byte, 0, headerSize+2+1+tagSize), typeAlert, []byte{fatal, f.alert}))
}
