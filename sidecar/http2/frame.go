package http2

import "encoding/binary"

// Frame types (RFC 9113 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameRSTStream    = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
)

// Flags.
const (
	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings (RFC 9113 6.5.2, RFC 8441 3).
const (
	settingHeaderTableSize      = 0x1
	settingEnablePush           = 0x2
	settingMaxConcurrentStreams = 0x3
	settingInitialWindowSize    = 0x4
	settingMaxFrameSize         = 0x5
	settingMaxHeaderListSize    = 0x6
	settingEnableConnect        = 0x8
)

const (
	frameHeaderLen = 9
	// maxFrameSize is what we accept and what we send: the protocol's minimum, which
	// keeps one stream from holding the connection for long.
	maxFrameSize  = 16 << 10
	maxWindow     = 1<<31 - 1
	maxStreamID   = 1<<31 - 1
	initialWindow = 65535
	initialTable  = 4096
	clientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// frameHeader is a frame's first nine bytes.
type frameHeader struct {
	length int
	kind   uint8
	flags  uint8
	stream uint32
}

func (h *frameHeader) has(flag uint8) bool { return h.flags&flag != 0 }

// parseFrameHeader reads a frame's header; b has at least nine bytes. The reserved
// bit is ignored.
func parseFrameHeader(b []byte) frameHeader {
	return frameHeader{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   b[3], flags: b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & maxStreamID,
	}
}

func appendFrameHeader(dst []byte, length int, kind, flags uint8, id uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), kind, flags,
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

// setLength writes a frame's length into its header.
func setLength(b []byte, length int) {
	b[0], b[1], b[2] = byte(length>>16), byte(length>>8), byte(length)
}

func appendWindowUpdate(dst []byte, id, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHeader(dst, 4, frameWindowUpdate, 0, id), n)
}

func appendRSTStream(dst []byte, id uint32, c Code) []byte {
	return binary.BigEndian.AppendUint32(appendFrameHeader(dst, 4, frameRSTStream, 0, id), uint32(c))
}

func appendGoAway(dst []byte, last uint32, c Code, debug string) []byte {
	dst = appendFrameHeader(dst, 8+len(debug), frameGoAway, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, last)
	dst = binary.BigEndian.AppendUint32(dst, uint32(c))
	return append(dst, debug...)
}

func appendPing(dst []byte, ack bool, data uint64) []byte {
	var flags uint8
	if ack {
		flags = flagAck
	}
	return binary.BigEndian.AppendUint64(appendFrameHeader(dst, 8, framePing, flags, 0), data)
}

func appendSetting(dst []byte, id uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, id), v)
}
