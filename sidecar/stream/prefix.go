package stream

// Prefixed is a stream some bytes of which were read already: they come first.
type Prefixed struct {
	Stream
	prefix []byte
	ready  ReadyReader
	try    TryWriter
}

// WithPrefix gives s its first bytes back; prefix is the Prefixed's from here on.
func WithPrefix(s Stream, prefix []byte) *Prefixed {
	p := &Prefixed{Stream: s, prefix: prefix}
	p.ready, _ = s.(ReadyReader)
	p.try, _ = s.(TryWriter)
	return p
}

// Read implements Stream.
func (p *Prefixed) Read(b []byte) (int, error) {
	if len(p.prefix) > 0 {
		n := copy(b, p.prefix)
		p.prefix = p.prefix[n:]
		return n, nil
	}
	return p.Stream.Read(b)
}

// ReadReady implements ReadyReader.
func (p *Prefixed) ReadReady(in Buffers) (int, error) {
	if len(p.prefix) > 0 || p.ready == nil {
		return p.Read(in.TakeBuffer())
	}
	p.prefix = nil
	return p.ready.ReadReady(in)
}

// ReadEach implements EachReader.
func (p *Prefixed) ReadEach(in Buffers, f func(n int, l *Leader) bool) error {
	for {
		if each, ok := p.Stream.(EachReader); ok && len(p.prefix) == 0 {
			p.prefix = nil
			return each.ReadEach(in, f)
		}
		if n, err := p.ReadReady(in); err != nil || !f(n, nil) {
			return err
		}
	}
}

// TryWrite implements TryWriter.
func (p *Prefixed) TryWrite(b []byte) (n int, done bool, err error) {
	if p.try == nil {
		return 0, false, nil
	}
	return p.try.TryWrite(b)
}

// closeNow is Close for CloseNow.
func (p *Prefixed) closeNow() error { return CloseNow(p.Stream) }
