package http2

import (
	"fmt"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/workers"
)

// Config says how to speak. It carries Envoy's Http2ProtocolOptions, and starts from
// Default: a zero member means zero. It must not change while connections use it.
type Config struct {
	// HeaderTableSize is hpack_table_size in bytes: what we announce, and the most
	// that our encoder uses. 0 turns the dynamic table off.
	HeaderTableSize uint32
	// MaxConcurrentStreams is 1 to 2^31-1: what we announce to clients, and the
	// most that we open towards a server, which may allow less.
	MaxConcurrentStreams uint32
	// StreamWindow and ConnWindow are the initial receive windows in bytes, 65,535 to
	// 2^31-1. They bound what is buffered; the last piece of a body does not count in
	// ConnWindow any more once it is worked on, and is at most 256 KB.
	StreamWindow, ConnWindow uint32
	// MaxStreamWindow is how far the window of a stream grows whose data are read, by twice
	// each time; all streams of a connection together grow by SpareWindow at most. 0 is
	// not at all.
	MaxStreamWindow, SpareWindow uint32 `json:",omitempty"`
	// AllowConnect announces extended CONNECT to clients (RFC 8441).
	AllowConnect bool

	// MaxOutboundFrames and MaxOutboundControlFrames bound the frames that wait to be
	// written: of all types, and of PING, SETTINGS, RST_STREAM and WINDOW_UPDATE,
	// which a peer can make us send.
	MaxOutboundFrames, MaxOutboundControlFrames int
	// MaxEmptyFrames bounds consecutive HEADERS, CONTINUATION and DATA frames that
	// neither carry nor end anything.
	MaxEmptyFrames int
	// MaxPriorityPerStream bounds PRIORITY frames: this times (1 + streams opened).
	MaxPriorityPerStream int
	// MaxWindowUpdatesPerData bounds WINDOW_UPDATE frames:
	// 5 + 2 × (streams opened + this × DATA frames sent).
	MaxWindowUpdatesPerData int
	// ResetBurst and ResetRate (a second) are the bucket from which every stream takes one
	// that a client resets within a second and before its answer has begun, or makes us
	// reset. Each request that is answered gives one back.
	ResetBurst, ResetRate int
	// MaxGlitches is the bucket for what is legal and of no use, or illegal and not
	// fatal; it refills by a tenth each second.
	MaxGlitches int

	// Metered tells for each stream of a server whether it has a Meter; nil is no.
	Metered func() bool `json:"-"`

	// MalformedEndsConnection makes a malformed message a connection error instead of
	// a stream error: override_stream_error_on_invalid_http_message turned round.
	MalformedEndsConnection bool
	// CustomSettings are announced as they are.
	CustomSettings []Setting
	Keepalive      Keepalive
	// Huffman makes the encoder use Huffman codes where they are shorter: fewer bytes
	// for more work.
	Huffman bool
	// RejectObsText refuses bytes above 0x7f in field values (RFC 9110 5.5).
	RejectObsText bool
	// MaxFieldBytes bounds the name and the value of a field as they come, Huffman codes counted as
	// such; a longer one ends the connection. 0 is no bound but that of the whole head.
	MaxFieldBytes int `json:",omitempty"`

	// Limits bound what a message's head may hold.
	Limits http1.Limits
	// Underscores is what a server does about field names with an underscore, in heads and
	// in trailers.
	Underscores http1.Underscores
	// StrictScheme refuses a :scheme that is not the transport's. It is off by
	// default: proxies keep the scheme of the client they act for.
	StrictScheme bool

	// HeaderTimeout bounds the time from a head's first byte to its last, and from
	// the start of the connection to the peer's SETTINGS. 0 is none.
	HeaderTimeout time.Duration
	// HeadIdle is HeaderTimeout where that is none, or longer, but for the peer's first SETTINGS: a
	// head is a stream's on which nothing moves until it is whole. 0 is none.
	HeadIdle time.Duration
	// WriteTimeout ends a connection whose peer takes no byte for so long while there
	// are some for it. 0 is none.
	WriteTimeout time.Duration
	// Linger is how long a connection that has said its last waits for the peer to take
	// it: closing a socket with unread input could destroy what is on its way. Envoy's
	// delayed_close_timeout. With 0 it is closed once everything is written.
	Linger time.Duration
	// DrainTimeout is how long a draining connection waits for the answer to its PING
	// before it stops admitting streams.
	DrainTimeout time.Duration
	// DrainJitter is the part of DrainTimeout, 0 to 1, up to which a connection waits
	// longer, by chance. With any the whole time passes, whatever is answered: connections
	// that drain together do not end together.
	DrainJitter float64
	// BufferBytes is how much may wait to be written before those who write wait.
	BufferBytes int

	// Workers run the handlers of a server's streams; without them each has a goroutine.
	Workers *workers.Pool `json:"-"`

	// OnGlitch, if set, is told of every glitch, and of what ended a connection for
	// abuse. It is called by the connection's reader: it counts, and returns.
	OnGlitch func(Glitch) `json:"-"`
	// OnEvent, if set, is told of every event. It is called with the connection locked: it
	// counts, and returns.
	OnEvent func(Event) `json:"-"`
}

// Setting is a SETTINGS parameter.
type Setting struct {
	ID    uint16
	Value uint32
}

// Keepalive is Envoy's KeepaliveSettings.
type Keepalive struct {
	// Interval is the period of PINGs; 0 is none.
	Interval time.Duration
	// Timeout is how long to wait for an answer; any frame extends it.
	Timeout time.Duration
	// Jitter is the most that is added to each interval, as a fraction of it.
	Jitter float64
	// Idle: after so long without traffic, a PING goes ahead of a new stream. 0 is
	// never.
	Idle time.Duration
}

// Default returns Envoy's defaults, and ours for what Envoy does not have.
func Default() *Config {
	return &Config{
		HeaderTableSize:          initialTable,
		MaxConcurrentStreams:     1024,
		StreamWindow:             16 << 20,
		ConnWindow:               24 << 20,
		MaxOutboundFrames:        10000,
		MaxOutboundControlFrames: 1000,
		MaxEmptyFrames:           1,
		MaxPriorityPerStream:     100,
		MaxWindowUpdatesPerData:  10,
		ResetBurst:               1000,
		ResetRate:                33,
		MaxGlitches:              1000,
		Limits:                   http1.Limits{}.WithDefaults(),
		HeaderTimeout:            10 * time.Second,
		WriteTimeout:             time.Minute,
		Linger:                   time.Second,
		DrainTimeout:             time.Second,
		BufferBytes:              64 << 10,
	}
}

// ForTunnels returns the terms of a connection that carries byte streams of clients that
// know nothing of each other. One whose reader stands still must not hold up the
// others, so the connection's window is never what is short: it is what all streams may
// hold together, and some more, as much as may wait to be given back. Each begins with a
// small window; those that are read come to about what a socket's buffers hold, as long
// as they are few. More streams than that many are another connection's.
func ForTunnels() *Config {
	c := Default()
	c.StreamWindow, c.MaxConcurrentStreams = 64<<10, 256
	c.MaxStreamWindow, c.SpareWindow = 1<<20, 8<<20
	c.ConnWindow = c.StreamWindow*c.MaxConcurrentStreams + c.SpareWindow + 1<<20
	return c
}

// Validate checks the ranges, and fills in Limits. The error names the member.
func (c *Config) Validate() error {
	if !(c.DrainJitter >= 0 && c.DrainJitter <= 1) {
		return fmt.Errorf("http2: DrainJitter is %v, must be 0 to 1", c.DrainJitter)
	}
	bad := func(what string, v, lo, hi int64) error {
		if v < lo || v > hi {
			return fmt.Errorf("http2: %s is %d, must be %d to %d", what, v, lo, hi)
		}
		return nil
	}
	for _, r := range []struct {
		what      string
		v, lo, hi int64
	}{
		{"HeaderTableSize", int64(c.HeaderTableSize), 0, 1 << 20},
		{"MaxConcurrentStreams", int64(c.MaxConcurrentStreams), 1, maxStreamID},
		{"StreamWindow", int64(c.StreamWindow), initialWindow, maxWindow},
		{"ConnWindow", int64(c.ConnWindow), initialWindow, maxWindow},
		{"MaxStreamWindow", int64(c.MaxStreamWindow), 0, maxWindow},
		{"SpareWindow", int64(c.SpareWindow), 0, maxWindow},
		{"MaxOutboundFrames", int64(c.MaxOutboundFrames), 1, maxWindow},
		{"MaxOutboundControlFrames", int64(c.MaxOutboundControlFrames), 1, maxWindow},
		{"MaxEmptyFrames", int64(c.MaxEmptyFrames), 0, maxWindow},
		{"MaxPriorityPerStream", int64(c.MaxPriorityPerStream), 0, maxWindow},
		{"MaxWindowUpdatesPerData", int64(c.MaxWindowUpdatesPerData), 1, maxWindow},
		{"ResetBurst", int64(c.ResetBurst), 0, maxWindow},
		{"ResetRate", int64(c.ResetRate), 0, maxWindow},
		{"MaxGlitches", int64(c.MaxGlitches), 1, maxWindow},
		{"BufferBytes", int64(c.BufferBytes), 1 << 10, maxWindow},
	} {
		if err := bad(r.what, r.v, r.lo, r.hi); err != nil {
			return err
		}
	}
	for _, s := range c.CustomSettings {
		switch s.ID {
		case settingHeaderTableSize, settingEnablePush, settingMaxConcurrentStreams, settingInitialWindowSize,
			settingMaxFrameSize, settingMaxHeaderListSize, settingEnableConnect:
			return fmt.Errorf("http2: CustomSettings holds %#x, which has a member of its own or is not to be chosen", s.ID)
		}
	}
	if k := c.Keepalive; (k.Interval > 0 || k.Idle > 0) && k.Timeout <= 0 {
		return fmt.Errorf("http2: Keepalive has no Timeout")
	} else if k.Jitter < 0 || k.Jitter > 1 {
		return fmt.Errorf("http2: Keepalive.Jitter is %v, must be 0 to 1", k.Jitter)
	}
	c.Limits = c.Limits.WithDefaults()
	return nil
}
