package ads

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Bounds on what one stream can make the server remember.
const (
	maxTypes        = 32
	maxNamesPerType = 1 << 16
	// maxName bounds one name, and maxPeerNames all that the streams of one peer name: a node's
	// agent relays those of every proxy on its host.
	maxName      = 4 << 10
	maxPeerNames = 256 << 20
	// perName is about what it costs to remember a name, beside itself.
	perName = 512
	// maxNode bounds what a client says of itself, which is kept as long as its stream.
	maxNode = 256 << 10
	// maxResponse is below gRPC's default message limit of 4 MiB, which
	// foreign clients keep.
	maxResponse = 3 << 20
	// maxUrgent bounds the urgent responses that await an answer: enough that
	// none waits in practice, few enough that a client that never answers
	// cannot grow its session.
	maxUrgent = 8
	// maxUnsure bounds what is remembered of one name that a client keeps
	// rejecting.
	maxUnsure = 8
)

// core is one stream's protocol state: what the client asked for, what it holds
// and what is on its way. It has no goroutine and no clock of its own; the
// session calls it under its mutex.
type core struct {
	// Set once.
	delta bool
	hold  time.Duration
	// forceEndpoints answers the first EDS request of a resumed stream in
	// full. Envoy counts an assignment as held although a cluster that is
	// warming still waits for it.
	forceEndpoints bool

	// Changed by requests, sets and next.
	types  map[string]*typeState
	order  []*typeState
	set    *resource.Set
	nonces uint64
	// assignments named by the clusters of set; nil until first needed.
	assignments map[string]struct{}
}

// holding is what the client has of one name. res is nil when only its version
// is known, from initial_resource_versions.
type holding struct {
	version string
	res     *resource.Resource
}

// nack is a quarantined resource.
type nack struct {
	version, detail string
}

// pending is a response the client has not answered.
type pending struct {
	nonce   string
	sent    time.Time
	upserts map[string]*resource.Resource
	removed []string
	urgent  bool
	// carried is set when a full list also contained changes of responses that
	// were outstanding: then a rejection does not convict upserts.
	carried bool
}

// typeState is one resource type of one stream.
type typeState struct {
	url string
	// full: each response lists everything (state of the world, LDS and CDS).
	full bool

	// The subscription.
	wildcard  bool
	everNamed bool
	names     map[string]struct{}
	// size is about what the names cost that the client has given, claimed those that it
	// said at first to hold.
	size, claimed int
	// empty are assignments without endpoints, by name. EDS only.
	empty map[string]*resource.Resource

	// What the client has and what it is owed. must are names to be answered
	// even if unchanged; answer owes a response even if it carries nothing;
	// toldPartial says that the last response announced that more follows.
	held        map[string]holding
	must        map[string]struct{}
	answer      bool
	toldPartial bool

	// Responses in flight, oldest first; at most one that is not urgent.
	pending   []*pending
	lastNonce string

	// Rejections. suspects wait in retry groups for an attempt of their own;
	// nacked are quarantined at that version. clean owes a full list that
	// holds nothing rejected.
	nacked    map[string]nack
	fallen    map[string]nack // of which the client gets the fallback
	suspects  map[string]string
	retry     [][]string
	retryTurn bool
	clean     bool
	// unsure is what rejected batches carried: the client may have kept any of
	// it, so held may be wrong until the next acknowledgement of the name.
	unsure map[string][]*resource.Resource

	// When a resource was first held back, or a removal first due.
	blockedSince map[string]time.Time
	goneSince    map[string]time.Time
	// warming are clusters that were new to the client when they were sent and
	// whose endpoints it has not yet acknowledged. CDS only.
	warming map[string]struct{}

	// Derived from the above by refresh when dirty: upserts to be sent, names
	// the client holds that are gone, and names asked for that do not exist.
	dirty  bool
	due    []*resource.Resource
	gone   []string
	absent []string

	lastAck   time.Time
	lastError string
}

// response is what next wants sent. In a full type upserts is the whole list;
// changed counts what is new in it.
type response struct {
	url     string
	nonce   string
	upserts []*resource.Resource
	removed []string
	changed int
	partial bool
}

func newCore(delta bool, hold time.Duration) *core {
	return &core{delta: delta, hold: hold, types: map[string]*typeState{}}
}

// rank orders types as they are pushed; types we do not know come last.
func rank(url string) int {
	if i := slices.Index(resource.PushOrder, url); i >= 0 {
		return i
	}
	return len(resource.PushOrder)
}

// typeFor returns the state of a type and whether this is its first request.
func (c *core) typeFor(url string) (ts *typeState, first bool, err error) {
	if ts := c.types[url]; ts != nil {
		return ts, false, nil
	}
	if url == "" {
		return nil, false, status.Error(codes.InvalidArgument, "a discovery request names no type_url")
	}
	if len(c.types) == maxTypes {
		return nil, false, status.Errorf(codes.ResourceExhausted, "a stream may ask for at most %d resource types", maxTypes)
	}
	ts = &typeState{
		url:          url,
		full:         !c.delta && (url == resource.ListenerType || url == resource.ClusterType),
		names:        map[string]struct{}{},
		held:         map[string]holding{},
		must:         map[string]struct{}{},
		nacked:       map[string]nack{},
		fallen:       map[string]nack{},
		suspects:     map[string]string{},
		unsure:       map[string][]*resource.Resource{},
		blockedSince: map[string]time.Time{},
		goneSince:    map[string]time.Time{},
		warming:      map[string]struct{}{},
		dirty:        true,
	}
	c.types[url] = ts
	c.order = append(c.order, ts)
	slices.SortStableFunc(c.order, func(a, b *typeState) int { return rank(a.url) - rank(b.url) })
	return ts, true, nil
}

// setView takes a new set. A type whose map is the same object is unchanged.
func (c *core) setView(set *resource.Set) {
	old := c.set
	c.set, c.assignments = set, nil
	for _, ts := range c.order {
		if old == nil || !sameMap(old.ByType[ts.url], set.ByType[ts.url]) {
			ts.dirty = true
		}
		// Whether an absent assignment is empty or removed depends on clusters.
		if ts.url == resource.EndpointType && old != nil &&
			!sameMap(old.ByType[resource.ClusterType], set.ByType[resource.ClusterType]) {
			ts.dirty = true
		}
	}
}

func sameMap(a, b map[string]*resource.Resource) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

func (ts *typeState) wants(name string) bool {
	if ts.wildcard {
		return true
	}
	_, ok := ts.names[name]
	return ok
}

// forget drops all state of a name the client no longer asks for.
func (ts *typeState) forget(name string) {
	delete(ts.held, name)
	delete(ts.must, name)
	delete(ts.nacked, name)
	delete(ts.fallen, name)
	delete(ts.suspects, name)
	delete(ts.unsure, name)
	delete(ts.blockedSince, name)
	delete(ts.goneSince, name)
	delete(ts.warming, name)
}

// outstanding reports whether a response that is not urgent awaits its answer.
func (ts *typeState) outstanding() bool {
	return slices.ContainsFunc(ts.pending, func(p *pending) bool { return !p.urgent })
}

// quiet reports whether nothing is to be upserted and nothing is in flight.
func (c *core) quiet() bool {
	for _, ts := range c.order {
		if len(ts.due) > 0 || len(ts.absent) > 0 || len(ts.pending) > 0 || ts.answer || ts.clean {
			return false
		}
	}
	return true
}

// size is about what the names cost that the client has given.
func (c *core) size() int {
	n := 0
	for _, ts := range c.order {
		n += ts.size
	}
	return n
}

func (c *core) nonce() string {
	c.nonces++
	return strconv.FormatUint(c.nonces, 10)
}

func sortResources(rs []*resource.Resource) {
	slices.SortFunc(rs, func(a, b *resource.Resource) int { return strings.Compare(a.Name, b.Name) })
}
