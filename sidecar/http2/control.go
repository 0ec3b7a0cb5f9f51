package http2

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// settingsFrame takes SETTINGS (RFC 9113 6.5).
func (c *conn) settingsFrame(h *frameHeader, p []byte) *ConnError {
	switch {
	case h.stream != 0:
		return connError(ProtocolError, "settings_on_stream")
	case h.has(flagAck) && len(p) > 0, len(p)%6 != 0:
		return connError(FrameSizeError, "settings_size")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.has(flagAck) {
		if c.unackedSet == 0 {
			return c.glitch(GlitchSettings)
		}
		c.unackedSet--
		c.dec.acknowledged(c.cfg.HeaderTableSize)
		return nil
	}
	if c.started {
		if err := c.glitch(GlitchSettings); err != nil {
			return err
		}
	}
	if c.client != nil && !c.started {
		c.client.peerStreams = math.MaxUint32 // where they do not tell
	}
	window, highest := c.peerWindow, c.peerWindow
	for ; len(p) > 0; p = p[6:] {
		id, v := binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])
		if id == settingInitialWindowSize {
			window = int64(v)
			highest = max(highest, window)
			continue
		}
		if err := c.setting(id, v); err != nil {
			return err
		}
	}
	if err := c.initialWindow(window, highest); err != nil {
		return err
	}
	c.started = true
	if c.client != nil {
		c.client.settingsArrived()
	}
	o := c.out()
	o.b = appendFrameHeader(o.b, 0, frameSettings, flagAck, 0)
	c.control()
	if c.flooded() {
		return c.flood(GlitchOutboundFrames)
	}
	return nil
}

// setting applies one parameter; unknown ones are ignored (RFC 9113 6.5.2).
func (c *conn) setting(id uint16, v uint32) *ConnError {
	switch id {
	case settingHeaderTableSize:
		c.enc.resize(v)
	case settingEnablePush:
		if v > 1 || v == 1 && c.client != nil {
			return connError(ProtocolError, "bad_enable_push")
		}
	case settingMaxConcurrentStreams:
		if c.client != nil {
			c.client.peerStreams = v
		}
	case settingMaxFrameSize:
		if v < maxFrameSize || v > 1<<24-1 {
			return connError(ProtocolError, "bad_max_frame_size")
		}
	case settingEnableConnect:
		if v > 1 || v == 0 && c.client != nil && c.client.peerConnect {
			return connError(ProtocolError, "bad_enable_connect_protocol")
		}
		if c.client != nil {
			c.client.peerConnect = v == 1
		}
	}
	return nil
}

// initialWindow sets the initial window of what we send on streams to the last value of a
// frame, and checks the highest: as many as it may hold, the streams are gone through
// once (CVE-2020-11080). The lock is held.
func (c *conn) initialWindow(v, highest int64) *ConnError {
	if highest > maxWindow {
		return connError(FlowControlError, "bad_initial_window")
	}
	delta, most := v-c.peerWindow, highest-c.peerWindow
	if most == 0 && delta == 0 {
		return nil
	}
	c.peerWindow = v
	for _, s := range c.streams {
		if s.sendWin+most > maxWindow {
			return connError(FlowControlError, "window_overflow")
		}
		s.sendWin += delta
		if delta > 0 {
			s.wcond.Signal()
		}
	}
	return nil
}

// goAwayFrame takes GOAWAY (RFC 9113 6.8).
func (c *conn) goAwayFrame(h *frameHeader, p []byte) *ConnError {
	switch {
	case h.stream != 0:
		return connError(ProtocolError, "goaway_on_stream")
	case len(p) < 8:
		return connError(FrameSizeError, "goaway_size")
	}
	last, code := binary.BigEndian.Uint32(p)&maxStreamID, Code(binary.BigEndian.Uint32(p[4:]))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		// Streams that there are go on, and what comes while there are some is served.
		c.server.left = true
		return nil
	}
	return c.client.goneAway(last, code)
}

// keeper sends PINGs and judges their answers. It has the connection's one timer, which
// is made when it is first needed.
type keeper struct {
	c        *conn
	watching bool // lastRead is kept
	lastRead time.Time
	timer    *time.Timer
	due      time.Time // of the timer, zero while it is stopped

	waiting  bool // a PING of ours is not answered
	sent     time.Time
	token    uint64
	draining bool // the PING is a drain's
	// late is the token of a PING that a drain's overtook, whose answer is still to come.
	late      uint64
	overtaken bool
}

// start begins the periodic PINGs. The connection's lock is held here and below.
func (k *keeper) start() {
	cfg := &k.c.cfg.Keepalive
	if cfg.Interval <= 0 && cfg.Idle <= 0 {
		return
	}
	k.watching = true
	if cfg.Interval > 0 {
		k.arm(k.interval())
	}
}

func (k *keeper) interval() time.Duration {
	return jittered(k.c.cfg.Keepalive.Interval, k.c.cfg.Keepalive.Jitter)
}

// jittered adds up to a part of d to it, by chance.
func jittered(d time.Duration, part float64) time.Duration {
	if most := time.Duration(float64(d) * part); most > 0 {
		d += rand.N(most)
	}
	return d
}

func (k *keeper) arm(d time.Duration) {
	k.due = time.Now().Add(d)
	if k.timer == nil {
		k.timer = time.AfterFunc(d, k.fire)
		return
	}
	k.timer.Reset(d)
}

func (k *keeper) stop() {
	k.due = time.Time{}
	if k.timer != nil {
		k.timer.Stop()
	}
}

// ping sends a PING, unless one is under way.
func (k *keeper) ping() {
	if k.waiting {
		return
	}
	k.waiting, k.sent, k.token = true, time.Now(), rand.Uint64()
	c := k.c
	o := c.out()
	o.b = appendPing(o.b, false, k.token)
	c.w.frames++
	c.w.urgent = true
}

// beforeStream checks a connection that was idle for long before it gets a stream.
func (k *keeper) beforeStream() {
	idle := k.c.cfg.Keepalive.Idle
	if idle <= 0 || k.waiting || time.Since(k.lastRead) < idle {
		return
	}
	k.ping()
	k.arm(k.c.cfg.Keepalive.Timeout)
}

func (k *keeper) pingForDrain() {
	if k.waiting { // a PING that is under way proves nothing, but is answered
		k.late, k.overtaken = k.token, true
	}
	k.draining, k.waiting = true, false
	k.ping()
	k.arm(jittered(k.c.cfg.DrainTimeout, k.c.cfg.DrainJitter))
}

// acknowledged takes the answer to a PING; it is false when there was none to answer.
func (k *keeper) acknowledged(token uint64) bool {
	if k.overtaken && token == k.late {
		k.overtaken = false
		return true
	}
	if !k.waiting || token != k.token {
		return false
	}
	k.waiting = false
	switch {
	case k.draining && k.c.cfg.DrainJitter > 0:
		// The time is to pass.
	case k.draining:
		k.draining = false
		k.stop()
		k.c.server.goAway()
	case k.c.cfg.Keepalive.Interval > 0:
		k.arm(k.interval())
	default:
		k.stop()
	}
	return true
}

// fire is the timer's.
func (k *keeper) fire() {
	c := k.c
	defer panics.Contain(panics.Timer, c, func() { c.abort(errPanicked) })
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg := &c.cfg.Keepalive
	switch {
	case c.err != nil:
	case k.due.IsZero() || time.Now().Before(k.due):
		// It was stopped, or set anew, while it waited for the lock.
	case k.draining:
		// No answer in time: go on without.
		k.draining = false
		c.server.goAway()
		if k.watching && cfg.Timeout > 0 {
			k.arm(cfg.Timeout)
		}
	case !k.waiting:
		k.ping()
		c.flush(false)
		k.arm(cfg.Timeout)
	default:
		// Any frame shows that the peer lives; what is queued before it may delay
		// the answer.
		since := k.sent
		if k.lastRead.After(since) {
			since = k.lastRead
		}
		if left := cfg.Timeout - time.Since(since); left > 0 {
			k.arm(left)
			return
		}
		c.fail(errSilent)
		c.wakeReader()
	}
}
