//go:build e2e

package files

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// versioned is a resource with what its version is.
type versioned struct {
	body    *anypb.Any
	version string
}

// told is what a server has told of one type, and what it heard of it.
type told struct {
	began    bool
	all      bool            // every resource, by no name
	names    map[string]bool // those asked for
	sent     map[string]string
	nonce    string
	answered bool
	verdicts map[string]string // by nonce: "ack", or why not
}

// ads is an aggregated discovery server of one client that sends what it is told to, in any
// order, faulty resources among it, and keeps what the client says of each response.
type ads struct {
	delta bool
	// frank says of endpoints asked for that they are not there (delta). Of routes that has a
	// listener of Envoy wait for ever: the first fetch is over, and nothing has come of it.
	frank  bool
	port   int
	server *grpc.Server

	mu   sync.Mutex
	has  map[string]map[string]versioned // by type and name
	told map[string]*told
	send func(proto.Message) error // to the stream that is open
	n    int
	log  []string
}

func newADS(t *testing.T, delta, frank bool) *ads {
	t.Helper()
	a := &ads{delta: delta, frank: frank, has: map[string]map[string]versioned{}, told: map[string]*told{}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.port = ln.Addr().(*net.TCPAddr).Port
	a.server = grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(a.server, a)
	go func() { _ = a.server.Serve(ln) }()
	return a
}

func (a *ads) note(format string, args ...any) {
	a.log = append(a.log, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

// open takes a new stream: nothing was told on it.
func (a *ads) open(send func(proto.Message) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note("stream")
	a.send, a.told = send, map[string]*told{}
}

func (a *ads) of(url string) *told {
	t := a.told[url]
	if t == nil {
		t = &told{names: map[string]bool{}, sent: map[string]string{}, verdicts: map[string]string{}, answered: true}
		a.told[url] = t
	}
	return t
}

// StreamAggregatedResources is the state-of-the-world protocol.
func (a *ads) StreamAggregatedResources(s grpc.BidiStreamingServer[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]) error {
	a.open(func(m proto.Message) error { return s.Send(m.(*discoveryv3.DiscoveryResponse)) })
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		a.hearWorld(r)
	}
}

func (a *ads) hearWorld(r *discoveryv3.DiscoveryRequest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.of(r.TypeUrl)
	if r.ResponseNonce != t.nonce {
		a.hear(t, r.TypeUrl, r.ResponseNonce, r.ErrorDetail)
		if len(r.ResourceNames) == 0 && !byNoName(r.TypeUrl) {
			t.names = map[string]bool{} // nor is the last answered
		}
		return // of a response before the last: what it asks for is said again
	}
	first, again := !t.began, t.answered && r.ErrorDetail == nil && !t.all
	a.hear(t, r.TypeUrl, r.ResponseNonce, r.ErrorDetail)
	t.began, t.all = true, len(r.ResourceNames) == 0 && byNoName(r.TypeUrl)
	names, more := map[string]bool{}, false
	for _, n := range r.ResourceNames {
		names[n] = true
		more = more || !t.names[n]
	}
	again = again && len(names) == len(t.names) // a changed cluster asks again for what it had
	t.names = names
	if first || more || again {
		a.tellWorld(r.TypeUrl, false)
	}
}

// byNoName tells of the types that are sent whole to who asks for nothing.
func byNoName(url string) bool { return url == resource.ListenerType || url == resource.ClusterType }

// hear keeps what is said of a response.
func (a *ads) hear(t *told, url, nonce string, detail *status.Status) {
	if nonce == "" {
		return
	}
	t.verdicts[nonce] = "ack"
	if detail != nil {
		t.verdicts[nonce] = "nack " + detail.Message
		a.note("%s %s: %s", short(url), nonce, t.verdicts[nonce])
	}
	if nonce == t.nonce {
		t.answered = true
	}
}

// wanted are the names of a type that the client is to have, in order.
func (a *ads) wanted(url string) (out []string) {
	t := a.of(url)
	for _, name := range slices.Sorted(maps.Keys(a.has[url])) {
		if t.all || t.names[name] {
			out = append(out, name)
		}
	}
	return out
}

// tellWorld sends all of a type; none of it only when it is a change.
func (a *ads) tellWorld(url string, change bool) string {
	t := a.of(url)
	names := a.wanted(url)
	if !t.began || len(names) == 0 && !t.all && (!change || len(t.names) == 0) {
		return "" // what nobody asks for Envoy does not answer
	}
	a.n++
	t.nonce, t.answered = strconv.Itoa(a.n), false
	m := &discoveryv3.DiscoveryResponse{TypeUrl: url, Nonce: t.nonce, VersionInfo: t.nonce}
	for _, name := range names {
		m.Resources = append(m.Resources, a.has[url][name].body)
	}
	a.note("%s %s tells %v", short(url), t.nonce, names)
	_ = a.send(m)
	return t.nonce
}

// DeltaAggregatedResources is the incremental protocol.
func (a *ads) DeltaAggregatedResources(s grpc.BidiStreamingServer[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]) error {
	a.open(func(m proto.Message) error { return s.Send(m.(*discoveryv3.DeltaDiscoveryResponse)) })
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		a.hearDelta(r)
	}
}

func (a *ads) hearDelta(r *discoveryv3.DeltaDiscoveryRequest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.of(r.TypeUrl)
	a.hear(t, r.TypeUrl, r.ResponseNonce, r.ErrorDetail)
	if !t.began && byNoName(r.TypeUrl) && len(r.ResourceNamesSubscribe) == 0 {
		t.all = true
	}
	first := !t.began
	t.began = true
	var again []string
	for _, n := range r.ResourceNamesUnsubscribe {
		delete(t.names, n)
		delete(t.sent, n)
	}
	for _, n := range r.ResourceNamesSubscribe {
		if n == "*" {
			t.all = true
			first = true
			continue
		}
		t.names[n] = true
		delete(t.sent, n)
		again = append(again, n)
	}
	if first && t.all || len(again) > 0 {
		a.tellDelta(r.TypeUrl, again, false)
	}
}

// tellDelta sends what is new of a type, and of those names asked for that they are not there.
func (a *ads) tellDelta(url string, asked []string, change bool) string {
	t := a.of(url)
	if !t.began {
		return ""
	}
	m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url}
	wanted := a.wanted(url)
	for _, name := range wanted {
		v := a.has[url][name]
		if t.sent[name] != v.version {
			m.Resources = append(m.Resources, &discoveryv3.Resource{Name: name, Version: v.version, Resource: v.body})
			t.sent[name] = v.version
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.sent)) {
		if !slices.Contains(wanted, name) {
			m.RemovedResources = append(m.RemovedResources, name)
			delete(t.sent, name)
		}
	}
	for _, name := range asked {
		if _, ok := a.has[url][name]; !ok && a.frank && url == resource.EndpointType {
			m.RemovedResources = append(m.RemovedResources, name)
		}
	}
	if len(m.Resources)+len(m.RemovedResources) == 0 && !t.all {
		return ""
	}
	if len(m.Resources)+len(m.RemovedResources) == 0 && change {
		return ""
	}
	a.n++
	t.nonce, t.answered = strconv.Itoa(a.n), false
	m.Nonce, m.SystemVersionInfo = t.nonce, t.nonce
	a.note("%s %s tells %d, without %v", short(url), t.nonce, len(m.Resources), m.RemovedResources)
	_ = a.send(m)
	return t.nonce
}

// set is what the server has of a type from now on, told to nobody yet.
func (a *ads) set(url string, bodies map[string]*anypb.Any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := map[string]versioned{}
	for name, body := range bodies {
		v := versioned{body: body, version: fmt.Sprintf("%x", hashOf(body.Value))}
		now[name] = v
	}
	a.has[url] = now
}

// tell sends what is new of a type, and returns its nonce, if anything was to be sent.
func (a *ads) tell(url string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.send == nil {
		return ""
	}
	if a.delta {
		return a.tellDelta(url, nil, true)
	}
	return a.tellWorld(url, true)
}

// verdict is what was said of a response, "" as long as nothing was.
func (a *ads) verdict(url, nonce string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.of(url)
	if v, ok := t.verdicts[nonce]; ok || nonce == "" {
		return v
	}
	return ""
}

// forget has all of a type told again with the next change.
func (a *ads) forget(url string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range a.of(url).sent {
		a.of(url).sent[name] = "another"
	}
}

// asks tells whether the client asks for a resource now.
func (a *ads) asks(url, name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.of(url).all || a.of(url).names[name]
}

// mark is a moment, for since.
func (a *ads) mark() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.n
}

// since is what was said of the responses of a type since a moment: a refusal, if there is one.
func (a *ads) since(url string, mark int) (said string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for nonce, v := range a.of(url).verdicts {
		if n, _ := strconv.Atoi(nonce); n > mark && !strings.HasPrefix(said, "nack") {
			said = v
		}
	}
	return said
}

// quiet tells whether every response was answered, but those of a type of which nothing is asked for any
// more: Envoy ignores one that crosses its last request.
func (a *ads) quiet() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.told {
		if !t.answered && (t.all || len(t.names) > 0) {
			return false
		}
	}
	return true
}

func (a *ads) history() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.log)
}
