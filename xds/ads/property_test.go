package ads

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"pgregory.net/rapid"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// model is a client as Envoy is one, and the network between: messages wait in
// both directions until a step delivers them, in order.
type model struct {
	t     *rapid.T
	delta bool
	c     *core
	now   time.Time
	sent  int

	toClient []*response
	toServer []request

	// What the client has, and what it asked for. warm are clusters whose
	// endpoints arrived after their last response; served are those that once
	// were warm.
	have         map[string]map[string]*resource.Resource
	asked        map[string]map[string]bool
	warm, served map[string]bool
	// strict checks references on every step; without it rejections happen
	// and holds time out.
	strict bool

	world map[resource.Ref]*resource.Resource
}

func newModel(t *rapid.T, delta, strict bool) *model {
	m := &model{
		t: t, delta: delta, strict: strict, now: time.Unix(1000, 0),
		have: map[string]map[string]*resource.Resource{}, asked: map[string]map[string]bool{},
		warm: map[string]bool{}, served: map[string]bool{}, world: map[resource.Ref]*resource.Resource{},
	}
	for _, url := range resource.PushOrder {
		m.have[url], m.asked[url] = map[string]*resource.Resource{}, map[string]bool{}
	}
	m.connect()
	return m
}

// connect begins a stream with what the client has.
func (m *model) connect() {
	m.c = newCore(m.delta, 5*time.Second)
	m.c.forceEndpoints = true // as for Envoy
	m.toClient, m.toServer = nil, nil
	m.publish()
	for _, url := range resource.PushOrder {
		names := slices.Sorted(maps.Keys(m.asked[url]))
		if len(names) == 0 && !legacyWildcard(url) {
			continue
		}
		if !m.delta {
			m.toServer = append(m.toServer, &discoveryv3.DiscoveryRequest{TypeUrl: url, ResourceNames: names})
			continue
		}
		initial := map[string]string{}
		for n, r := range m.have[url] {
			initial[n] = r.Version
		}
		m.toServer = append(m.toServer, &discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: url, ResourceNamesSubscribe: names, InitialResourceVersions: initial,
		})
	}
}

func (m *model) publish() { m.c.setView(set(slices.Collect(maps.Values(m.world))...)) }

func (m *model) put(r *resource.Resource) { m.world[resource.Ref{Type: r.Type, Name: r.Name}] = r }

// change makes a consistent change of the world: what is named exists.
func (m *model) change() {
	// Few versions, so that content also returns to what it was.
	v := fmt.Sprint(rapid.IntRange(1, 3).Draw(m.t, "version"))
	if !m.strict && rapid.IntRange(0, 3).Draw(m.t, "bad") == 0 {
		v = "bad" + v
	}
	name := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(m.t, "name")
	var clusters []string
	for ref := range m.world {
		if ref.Type == cds {
			clusters = append(clusters, ref.Name)
		}
	}
	slices.Sort(clusters)
	switch rapid.IntRange(0, 5).Draw(m.t, "change") {
	case 0:
		m.put(cl(name, v))
		if m.world[resource.Ref{Type: eds, Name: name}] == nil {
			m.put(ep(name, v))
		}
	case 1:
		if m.world[toCluster(name)] != nil {
			m.put(ep(name, v))
		}
	case 2, 3:
		if len(clusters) > 0 {
			to := rapid.SampledFrom(clusters).Draw(m.t, "to")
			m.put(rt("r"+name, v+to, to))
			m.put(ls("l"+name, v, toRoute("r"+name)))
		}
	case 4:
		if len(clusters) > 0 {
			to := rapid.SampledFrom(clusters).Draw(m.t, "to")
			m.put(ls("tcp"+name, v+to, toCluster(to)))
		}
	case 5:
		delete(m.world, resource.Ref{Type: lds, Name: "l" + name})
		delete(m.world, resource.Ref{Type: lds, Name: "tcp" + name})
		delete(m.world, toRoute("r"+name))
	}
	m.collect(clusters)
	m.publish()
}

// collect removes some clusters that nothing names.
func (m *model) collect(clusters []string) {
	for _, n := range clusters {
		used := false
		for _, r := range m.world {
			used = used || slices.Contains(r.Refs, toCluster(n))
		}
		if !used && rapid.Bool().Draw(m.t, "collect") {
			delete(m.world, toCluster(n))
			delete(m.world, resource.Ref{Type: eds, Name: n})
		}
	}
}

func (m *model) push() {
	out, _ := m.c.next(m.now)
	for _, r := range out {
		m.t.Logf("sent %s changed %d", line(r), r.changed)
	}
	m.toClient = append(m.toClient, out...)
	m.sent += len(out)
}

func (m *model) deliver() {
	if len(m.toServer) > 0 {
		req := m.toServer[0]
		m.toServer = m.toServer[1:]
		if _, err := m.c.apply(req, m.now); err != nil {
			m.t.Fatal(err)
		}
	}
}

func isBad(r *resource.Resource) bool { return bytes.Contains(r.Body.GetValue(), []byte("bad")) }

// receive lets the client take one response: good resources are kept even if
// others are rejected, as Envoy, gRPC and our client do.
func (m *model) receive() {
	if len(m.toClient) == 0 {
		return
	}
	r := m.toClient[0]
	m.toClient = m.toClient[1:]
	have := m.have[r.url]
	full := !m.delta && legacyWildcard(r.url)
	listed := map[string]bool{}
	nack := ""
	defer func() { m.t.Logf("client took %s nack %q", line(r), nack) }()
	for _, u := range r.upserts {
		listed[u.Name] = true
		if !legacyWildcard(r.url) && !m.asked[r.url][u.Name] {
			continue // no longer asked for
		}
		if isBad(u) {
			nack += u.Name + ": bad; "
			continue
		}
		if r.url == cds && (m.delta || have[u.Name] == nil || have[u.Name].Version != u.Version) {
			m.warm[u.Name] = false
		}
		if r.url == eds {
			m.warm[u.Name], m.served[u.Name] = true, true
		}
		have[u.Name] = u
	}
	removed := r.removed
	if full {
		removed = nil
		for n := range have {
			if !listed[n] {
				removed = append(removed, n)
			}
		}
	}
	for _, n := range removed {
		if r.url == cds {
			// In state of the world a server cannot know which part of a
			// rejected list was kept, so it may take back what it was.
			if by := m.names(n); by != "" && have[n] != nil && (m.delta || m.strict) {
				m.t.Fatalf("cluster %s is removed while %s names it", n, by)
			}
			delete(m.warm, n)
			delete(m.served, n)
		}
		delete(have, n)
	}
	m.check(r)
	m.reply(r, nack)
}

// names returns which listener or route of the client names a cluster.
func (m *model) names(cluster string) string {
	for _, url := range []string{lds, rds} {
		for n, r := range m.have[url] {
			if slices.Contains(r.Refs, toCluster(cluster)) {
				return short[url] + " " + n
			}
		}
	}
	return ""
}

// check is the property: what serves requests names only clusters that are
// known and that have had endpoints.
func (m *model) check(r *response) {
	if !m.strict || (r.url != lds && r.url != rds) {
		return
	}
	for _, u := range r.upserts {
		for _, ref := range u.Refs {
			if ref.Type != cds {
				continue
			}
			if m.have[cds][ref.Name] == nil {
				m.t.Fatalf("%s names unknown cluster %s", line(r), ref.Name)
			}
			if !m.served[ref.Name] {
				m.t.Fatalf("%s names cluster %s, which never had endpoints", line(r), ref.Name)
			}
		}
	}
}

// reply acknowledges, and asks for the children of what the client has.
func (m *model) reply(r *response, nack string) {
	var detail *spb.Status
	if nack != "" {
		detail = &spb.Status{Code: 3, Message: nack}
	}
	if m.delta {
		m.toServer = append(m.toServer, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.url, ResponseNonce: r.nonce, ErrorDetail: detail})
	} else {
		m.toServer = append(m.toServer, &discoveryv3.DiscoveryRequest{TypeUrl: r.url, ResponseNonce: r.nonce, ErrorDetail: detail,
			ResourceNames: slices.Sorted(maps.Keys(m.asked[r.url]))})
	}
	child := map[string]string{cds: eds, lds: rds}[r.url]
	if child == "" {
		return
	}
	want := map[string]bool{}
	for _, u := range m.have[r.url] {
		for _, ref := range u.Refs {
			if ref.Type == child {
				want[ref.Name] = true
			}
		}
	}
	old := m.asked[child]
	if maps.Equal(old, want) {
		return
	}
	m.asked[child] = want
	for n := range old {
		if !want[n] {
			delete(m.have[child], n)
		}
	}
	if !m.delta {
		nonce := ""
		if ts := m.c.types[child]; ts != nil {
			nonce = ts.lastNonce
			// The client knows only the nonces it has received.
			for _, p := range m.toClient {
				if p.url == child {
					nonce = m.lastReceived(child)
				}
			}
		}
		m.toServer = append(m.toServer, &discoveryv3.DiscoveryRequest{TypeUrl: child, ResponseNonce: nonce,
			ResourceNames: slices.Sorted(maps.Keys(want))})
		return
	}
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: child}
	for _, n := range slices.Sorted(maps.Keys(want)) {
		if !old[n] {
			req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, n)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(old)) {
		if !want[n] {
			req.ResourceNamesUnsubscribe = append(req.ResourceNamesUnsubscribe, n)
		}
	}
	m.toServer = append(m.toServer, req)
}

// lastReceived is the newest nonce of a type that has been delivered.
func (m *model) lastReceived(url string) string {
	first := uint64(0)
	for _, p := range m.toClient {
		if p.url == url {
			fmt.Sscan(p.nonce, &first)
			break
		}
	}
	// Any nonce that is not the newest is stale, whichever it is.
	return fmt.Sprintf("before-%d", first)
}

// settle delivers everything.
func (m *model) settle() {
	before := m.sent
	for idle := 0; idle < 3; {
		m.push()
		if len(m.toClient)+len(m.toServer) == 0 {
			idle++
			if !m.strict {
				m.now = m.now.Add(6 * time.Second)
			}
			continue
		}
		idle = 0
		m.receive()
		m.deliver()
		if m.sent-before > 500 {
			m.t.Fatalf("%d responses and no end", m.sent-before)
		}
	}
	for n := range m.have[cds] {
		if _, is := m.world[toCluster(n)]; is && !m.warm[n] && !m.badEndpoints(n) {
			m.t.Fatalf("cluster %s still waits for its endpoints", n)
		}
	}
	for ref, r := range m.world {
		if isBad(r) || (!legacyWildcard(ref.Type) && !m.asked[ref.Type][ref.Name]) {
			continue
		}
		if got := m.have[ref.Type][ref.Name]; got == nil || got.Version != r.Version {
			m.t.Fatalf("%s %s did not arrive", short[ref.Type], ref.Name)
		}
	}
	if !m.strict {
		return
	}
	for url, have := range m.have {
		for n := range have {
			if m.world[resource.Ref{Type: url, Name: n}] == nil {
				m.t.Fatalf("%s %s was not removed", short[url], n)
			}
		}
	}
}

func (m *model) badEndpoints(n string) bool {
	r := m.world[resource.Ref{Type: eds, Name: n}]
	return r != nil && isBad(r)
}

func property(delta, strict bool) func(*rapid.T) {
	return func(t *rapid.T) {
		m := newModel(t, delta, strict)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1:
				m.change()
			case 2, 3:
				m.push()
			case 4, 5, 6:
				m.receive()
			case 7, 8:
				m.deliver()
			case 9:
				switch {
				case !strict:
					m.now = m.now.Add(time.Second)
				case delta && rapid.IntRange(0, 3).Draw(t, "reconnect") == 0:
					// In state of the world a server cannot know what the
					// client still names, so only delta resumes.
					m.connect()
				default:
					m.settle()
				}
			}
		}
		m.settle()
	}
}

// TestMakeBeforeBreak: whatever changes, in whatever order messages arrive, a
// listener or route never names a cluster that is unknown or never had endpoints,
// no cluster goes while it is named, every cluster's response is followed by its
// endpoints, and in the end the client has exactly what it should.
func TestMakeBeforeBreak(t *testing.T) {
	t.Run("delta", rapid.MakeCheck(property(true, true)))
	t.Run("state of the world", rapid.MakeCheck(property(false, true)))
}

// TestRejectionsBlockNothingElse is the same with a client that rejects some of
// what it is sent and with holds that time out: good resources all arrive, bad
// ones are not repeated without end, and (delta) no cluster goes while it is named.
func TestRejectionsBlockNothingElse(t *testing.T) {
	t.Run("delta", rapid.MakeCheck(property(true, false)))
	t.Run("state of the world", rapid.MakeCheck(property(false, false)))
}
