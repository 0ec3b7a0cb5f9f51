package http2

// Event is something that few streams and connections end with. Each is counted.
type Event uint8

// The events.
const (
	// EventResetSent is an RST_STREAM of ours.
	EventResetSent Event = iota
	// EventResetReceived is one of the peer's, of a stream that is not over.
	EventResetReceived
	// EventGoAwaySent is the GOAWAY after which we admit no stream, but for one that says
	// what the peer did wrong.
	EventGoAwaySent

	numEvents
)

var eventNames = [numEvents]string{"tx_reset", "rx_reset", "goaway_sent"}

// String is the event as metrics name it.
func (e Event) String() string { return eventNames[e] }

func (c *conn) happened(e Event) {
	if c.cfg.OnEvent != nil {
		c.cfg.OnEvent(e)
	}
}
