package http2

import "github.com/hauberk-mesh/hauberk/sidecar/message"

// pair is a field of the static table.
type pair struct{ name, value string }

// staticTable is RFC 7541 Appendix A; index 0 is not used.
var staticTable = [...]pair{
	1: {":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"},
	{":scheme", "http"}, {":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"},
	{":status", "304"}, {":status", "400"}, {":status", "404"}, {":status", "500"}, {"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"}, {"accept-language", ""}, {"accept-ranges", ""}, {"accept", ""},
	{"access-control-allow-origin", ""}, {"age", ""}, {"allow", ""}, {"authorization", ""}, {"cache-control", ""},
	{"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
	{"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""}, {"date", ""}, {"etag", ""},
	{"expect", ""}, {"expires", ""}, {"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""},
	{"if-none-match", ""}, {"if-range", ""}, {"if-unmodified-since", ""}, {"last-modified", ""}, {"link", ""},
	{"location", ""}, {"max-forwards", ""}, {"proxy-authenticate", ""}, {"proxy-authorization", ""}, {"range", ""},
	{"referer", ""}, {"refresh", ""}, {"retry-after", ""}, {"server", ""}, {"set-cookie", ""},
	{"strict-transport-security", ""}, {"transfer-encoding", ""}, {"user-agent", ""}, {"vary", ""}, {"via", ""},
	{"www-authenticate", ""},
}

const staticLen = len(staticTable) - 1

// Indices that the encoder names.
const (
	indexAuthority  = 1
	indexMethodGET  = 2
	indexMethodPOST = 3
	indexPathRoot   = 4
	indexSchemeHTTP = 6
	indexStatus200  = 8
)

var (
	// staticIDs has the ids of the static table's names.
	staticIDs [len(staticTable)]message.ID
	// staticByName finds the first index of a name, by its id or for names without.
	staticByID   [64]uint8
	staticByName = map[string]uint8{}
)

func init() {
	for i := staticLen; i > 0; i-- {
		name := staticTable[i].name
		staticIDs[i] = message.IDOf(name)
		if name[0] == ':' {
			continue
		}
		if id := staticIDs[i]; id != message.Other {
			staticByID[id] = uint8(i)
		} else {
			staticByName[name] = uint8(i)
		}
	}
}

// entryOverhead is what an entry counts beyond its strings (RFC 7541 4.1).
const entryOverhead = 32

// dynamicTable is the dynamic table (RFC 7541 2.3.2). Its strings live in one arena,
// the oldest first, which is compacted when it has grown to twice the table's size.
type dynamicTable struct {
	arena   []byte
	entries []tableEntry
	first   int // the oldest entry
	size    int
	max     int
}

type tableEntry struct {
	off, nameLen, valLen uint32
	hash                 uint32 // for the encoder
	id                   message.ID
	flags                uint8 // for the decoder: how the field was judged
}

func (t *dynamicTable) len() int { return len(t.entries) - t.first }

// at returns the i-th newest entry, from 0.
func (t *dynamicTable) at(i int) *tableEntry { return &t.entries[len(t.entries)-1-i] }

func (t *dynamicTable) name(e *tableEntry) []byte { return t.arena[e.off : e.off+e.nameLen] }

func (t *dynamicTable) value(e *tableEntry) []byte {
	return t.arena[e.off+e.nameLen : e.off+e.nameLen+e.valLen]
}

// setMax changes the table's size (RFC 7541 4.3).
func (t *dynamicTable) setMax(n int) {
	t.max = n
	t.evict(0)
}

// evict makes room for an entry of n bytes.
func (t *dynamicTable) evict(n int) {
	for t.len() > 0 && t.size+n > t.max {
		e := &t.entries[t.first]
		t.size -= int(e.nameLen+e.valLen) + entryOverhead
		t.first++
	}
	if t.len() == 0 {
		t.entries, t.first, t.arena = t.entries[:0], 0, t.arena[:0]
	}
}

// add inserts an entry; one that is larger than the table empties it (RFC 7541 4.4).
// The strings must not be the table's own.
func (t *dynamicTable) add(name, value string, e tableEntry) {
	n := len(name) + len(value) + entryOverhead
	t.evict(n)
	if n > t.max {
		return
	}
	if t.first > 0 && (t.first >= 64 || len(t.arena)+len(name)+len(value) > 2*t.max) {
		t.compact()
	}
	e.off, e.nameLen, e.valLen = uint32(len(t.arena)), uint32(len(name)), uint32(len(value))
	t.arena = append(append(t.arena, name...), value...)
	t.entries = append(t.entries, e)
	t.size += n
}

func (t *dynamicTable) compact() {
	gone := t.entries[t.first].off
	t.arena = t.arena[:copy(t.arena, t.arena[gone:])]
	t.entries = t.entries[:copy(t.entries, t.entries[t.first:])]
	t.first = 0
	for i := range t.entries {
		t.entries[i].off -= gone
	}
}
