package http2

// Judge has a say in how a server's connection goes on.
type Judge interface {
	// Arrived is asked for each piece that has arrived, before anything of it is looked at.
	// It is called by the connection's reader, and the connection is not locked.
	Arrived() Verdict
}

// Verdict is what a Judge says.
type Verdict uint8

// What is to become of a connection.
const (
	GoOn Verdict = iota
	// Leave drains it, and it goes on.
	Leave
	// End ends it at once, with GOAWAY.
	End
	// Cut ends it without a word.
	Cut
)

// Of a connection that a Judge has ended the streams end with ErrOverloaded.
var (
	errShed = &ConnError{Code: NoError, Reason: ErrOverloaded.Reason, Err: ErrOverloaded}
	errCut  = &ConnError{Code: NoError, Reason: ErrOverloaded.Reason, Err: ErrOverloaded}
)

// Judge has j asked. It is called before Serve.
func (sc *ServerConn) Judge(j Judge) { sc.judge = j }

// judged is why the connection ends, nil where it goes on.
func (sc *ServerConn) judged() *ConnError {
	switch sc.judge.Arrived() {
	case Leave:
		sc.Drain()
		sc.stirs = true // a goroutine may be writing it
	case End:
		return errShed
	case Cut:
		return errCut
	}
	return nil
}
