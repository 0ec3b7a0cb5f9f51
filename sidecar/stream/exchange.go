package stream

import "syscall"

// tlsExchange is the state of one Exchange over TLS. The callback is made with the
// first, because only upstream connections need it.
type tlsExchange struct {
	once    func(fd uintptr) bool
	out     []byte
	in      Buffers
	begun   bool
	written int
	err     error
	// look before it is written, and what was seen.
	look, spoke bool
}

// Exchange implements Exchanger. The request is written after the poller was armed
// for reading, as Socket does it.
func (t *TLS) Exchange(out []byte, in Buffers, look bool) (written, n int, err error) {
	if t.have || t.unread() {
		if look && !t.Quiet() {
			return 0, 0, ErrNotQuiet
		}
		// What was received already may hold what there is to wait for.
		if written, err = t.Write(out); err != nil {
			return written, 0, err
		}
		n, err = t.Read(in.TakeBuffer())
		return written, n, err
	}
	x := &t.exchange
	if x.once == nil {
		x.once = t.exchangeOnce
	}
	x.out, x.in, x.begun, x.written, x.err = out, in, false, 0, nil
	x.look, x.spoke = look, false
	err = t.raw.raw.Read(x.once)
	x.out, x.in = nil, nil
	if err == nil {
		err = x.err
	}
	if err != nil {
		return x.written, 0, err
	}
	if x.spoke {
		if !t.Quiet() {
			return 0, 0, ErrNotQuiet
		}
		return t.Exchange(out, in, false) // it was a record that means nothing to us
	}
	n, err = t.Read(in.TakeBuffer())
	return x.written, n, err
}

// exchangeOnce writes, and is done when there is something to read.
func (t *TLS) exchangeOnce(fd uintptr) bool {
	x := &t.exchange
	if x.begun {
		return true
	}
	x.begun = true
	if x.look {
		if t.raw.peekNow(fd); t.raw.errno != syscall.EAGAIN {
			x.spoke = true
			return true
		}
	}
	if x.written, x.err = t.Write(x.out); x.err != nil {
		return true
	}
	x.out = nil
	x.in.DropBuffer()
	return false
}
