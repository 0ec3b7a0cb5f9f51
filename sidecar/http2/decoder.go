package http2

import "github.com/hauberk-mesh/hauberk/sidecar/message"

// decoder is the HPACK decoder of one direction (RFC 7541). It hands each field to a
// head as offsets into the head's arena, and allocates nothing once arena and table
// have grown to the traffic's size.
type decoder struct {
	table dynamicTable
	// limit is the largest table the encoder may ask for. mustShrink is set when the
	// encoder acknowledged a smaller one and has yet to say so (RFC 7541 4.2).
	limit      int
	mustShrink bool
	longest    int  // that a literal may be, 0 for any
	tooLong    bool // one was longer
}

func (d *decoder) init(tableSize uint32) {
	// Until our SETTINGS are acknowledged, the encoder may use the protocol's default.
	d.limit = max(int(tableSize), initialTable)
	d.table.max = initialTable
}

// acknowledged applies our table size after the peer's acknowledgement.
func (d *decoder) acknowledged(tableSize uint32) {
	d.limit = int(tableSize)
	d.mustShrink = d.table.max > d.limit
}

// maxSizeUpdates is how many may begin a block (RFC 7541 4.2).
const maxSizeUpdates = 2

// decode reads a whole header block. An error, which names its reason, leaves the
// table undefined: it ends the connection with COMPRESSION_ERROR.
func (d *decoder) decode(b []byte, h *head) (reason string) {
	updates := 0
	for len(b) > 0 && b[0]&0xe0 == 0x20 {
		n, rest, ok := readInt(b, 5)
		if !ok || n > d.limit {
			return "table_size_update_too_large"
		}
		if updates++; updates > maxSizeUpdates {
			return "too_many_table_size_updates"
		}
		d.table.setMax(n)
		d.mustShrink = false
		b = rest
	}
	if d.mustShrink && len(b) > 0 {
		return "no_table_size_update"
	}
	for len(b) > 0 {
		var ok bool
		switch c := b[0]; {
		case c&0x80 != 0: // indexed
			var i int
			if i, b, ok = readInt(b, 7); !ok || !d.indexed(i, h) {
				return "bad_index"
			}
		case c&0x40 != 0: // literal with incremental indexing
			if b, ok = d.literal(b, 6, true, h); !ok {
				return d.badLiteral()
			}
			if h.bomb() {
				return headBomb
			}
		case c&0x20 != 0:
			return "late_table_size_update"
		default: // literal without indexing, or never indexed
			if b, ok = d.literal(b, 4, false, h); !ok {
				return d.badLiteral()
			}
			if h.bomb() {
				return headBomb
			}
		}
	}
	return ""
}

func (d *decoder) badLiteral() string {
	if d.tooLong {
		return "field_too_long"
	}
	return "bad_literal"
}

func (d *decoder) indexed(i int, h *head) bool {
	switch {
	case i == 0:
		return false
	case i <= staticLen:
		p := &staticTable[i]
		if !h.room(len(p.name), len(p.value)) {
			return true
		}
		off := len(h.arena)
		h.arena = append(append(h.arena, p.name...), p.value...)
		h.field(staticIDs[i], off, len(p.name), len(p.value), judged)
		return true
	case i-staticLen > d.table.len():
		return false
	}
	e := d.table.at(i - staticLen - 1)
	if !h.room(int(e.nameLen), int(e.valLen)) {
		return true
	}
	off := len(h.arena)
	h.arena = append(h.arena, d.table.arena[e.off:e.off+e.nameLen+e.valLen]...)
	h.field(e.id, off, int(e.nameLen), int(e.valLen), e.flags)
	return true
}

// headBomb is a block that is read no further: two of its bytes name what the table has, which is
// copied, and needs as much in the table again. What is beyond the limits is read all the same, for the
// table's sake, but no honest block becomes so much of it.
const headBomb = "header_bomb"

// mostLiterals is what the literals of a block may have at least.
const mostLiterals = 1 << 20

func (h *head) bomb() bool {
	return h.literals > mostLiterals && h.literals > 16*h.cfg.Limits.HeadBytes
}

// literal reads a literal field (RFC 7541 6.2).
func (d *decoder) literal(b []byte, prefix uint, index bool, h *head) ([]byte, bool) {
	i, b, ok := readInt(b, prefix)
	if !ok {
		return nil, false
	}
	off := len(h.arena)
	id := message.Other
	flags := uint8(0)
	switch {
	case i == 0:
		if b, ok = d.str(b, h); !ok {
			return nil, false
		}
	case i <= staticLen:
		h.arena = append(h.arena, staticTable[i].name...)
		id, flags = staticIDs[i], nameJudged
	case i-staticLen <= d.table.len():
		e := d.table.at(i - staticLen - 1)
		h.arena = append(h.arena, d.table.name(e)...)
		id, flags = e.id, e.flags&^valueBad
	default:
		return nil, false
	}
	nameLen := len(h.arena) - off
	if b, ok = d.str(b, h); !ok {
		return nil, false
	}
	valLen := len(h.arena) - off - nameLen
	h.literals += nameLen + valLen
	if flags&nameJudged == 0 {
		id, flags = h.judgeName(h.arena[off : off+nameLen])
	}
	flags |= h.judgeValue(h.arena[off+nameLen:])
	if index {
		d.table.add(message.View(h.arena[off:off+nameLen]), message.View(h.arena[off+nameLen:]),
			tableEntry{id: id, flags: flags})
	}
	if !h.room(nameLen, valLen) {
		h.arena = h.arena[:off]
		return b, true
	}
	h.field(id, off, nameLen, valLen, flags)
	return b, true
}

// str reads a string literal into the head's arena (RFC 7541 5.2). The block, whose size
// is bounded, bounds it.
func (d *decoder) str(b []byte, h *head) ([]byte, bool) {
	if len(b) == 0 {
		return nil, false
	}
	huffman := b[0]&0x80 != 0
	n, b, ok := readInt(b, 7)
	if !ok || n > len(b) {
		return nil, false
	}
	if d.longest > 0 && n > d.longest {
		d.tooLong = true
		return nil, false
	}
	if huffman {
		h.arena, ok = appendHuffmanDecoded(h.arena, b[:n])
		return b[n:], ok
	}
	h.arena = append(h.arena, b[:n]...)
	return b[n:], true
}

// readInt reads an integer with an n-bit prefix (RFC 7541 5.1). What needs more than
// 28 bits beyond the prefix is refused: nothing here is that large.
func readInt(b []byte, n uint) (v int, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	full := 1<<n - 1
	v = int(b[0]) & full
	if v < full {
		return v, b[1:], true
	}
	for i, shift := 1, 0; i < len(b) && i <= 4; i, shift = i+1, shift+7 {
		v += int(b[i]&0x7f) << shift
		if b[i]&0x80 == 0 {
			return v, b[i+1:], true
		}
	}
	return 0, nil, false
}
