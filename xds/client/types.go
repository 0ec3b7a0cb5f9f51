package client

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

const wildcard = "*"

// typeState is one resource type. Client.mu guards it.
type typeState struct {
	url  string
	sotw bool

	// The subscription, and what was accepted and rejected under it. They
	// outlive streams.
	wildcard bool
	names    map[string]struct{}
	accepted map[string]*resource.Resource
	rejected map[string]string
	// absent are subscribed names the server said do not exist.
	absent map[string]struct{}
	// complete is set once the wildcard was answered in full.
	complete bool
	// sotwVersion is the version_info of the newest accepted response.
	sotwVersion string

	// Of the current stream: whether the type was requested, what was asked
	// for, the newest nonce, and answers not yet sent.
	requested    bool
	sentWildcard bool
	sentNames    map[string]struct{}
	// dropped are those of sentNames that were unsubscribed, though they may be wanted
	// again: what was accepted of them is gone, and comes again only to who asks anew.
	dropped map[string]struct{}
	// left are, of the state of the world, those that were dropped a short while ago, as they
	// were accepted or came since; again are those of them that are wanted again.
	left  map[string]departed
	again map[string]struct{}
	// cleared is when what left longer ago was last forgotten.
	cleared time.Time
	nonce   string
	replies []reply

	// streak counts rejections of the same content in a row.
	streak  int
	lastBad string
}

// departed is a resource that was dropped.
type departed struct {
	*resource.Resource
	at time.Time
}

// leftFor is how long a resource of the state of the world is kept once it was dropped. An
// answer that overtakes the requests which drop a name and ask for it again makes them old:
// its server takes no notice of them, and does not send again what it has sent.
const leftFor = 10 * time.Second

// reply is an ACK or NACK. A NACK of what was just rejected is delayed to
// notBefore: a server that sends it again at once must not be answered at once.
type reply struct {
	nonce     string
	nack      string
	notBefore time.Time
}

func newTypeState(url string, sotw bool) *typeState {
	return &typeState{
		url: url, sotw: sotw, names: map[string]struct{}{}, accepted: map[string]*resource.Resource{},
		rejected: map[string]string{}, absent: map[string]struct{}{}, sentNames: map[string]struct{}{},
		dropped: map[string]struct{}{}, left: map[string]departed{}, again: map[string]struct{}{},
	}
}

// begin forgets what belongs to the previous stream.
func (ts *typeState) begin() {
	ts.requested, ts.sentWildcard, ts.nonce, ts.replies = false, false, "", nil
	ts.sentNames, ts.dropped = map[string]struct{}{}, map[string]struct{}{}
	ts.streak, ts.lastBad = 0, ""
}

func (ts *typeState) wants(name string) bool {
	_, ok := ts.names[name]
	return ok || ts.wildcard
}

func (ts *typeState) subscribe(names []string) (changed bool) {
	if len(names) == 0 || slices.Contains(names, wildcard) {
		changed = !ts.wildcard
		ts.wildcard = true
	}
	for _, n := range names {
		if _, ok := ts.names[n]; !ok && n != wildcard && n != "" {
			ts.names[n] = struct{}{}
			changed = true
			if old, ok := ts.left[n]; ok && time.Since(old.at) < leftFor {
				ts.again[n] = struct{}{}
			}
		}
	}
	return changed
}

func (ts *typeState) unsubscribe(names []string) (changed bool) {
	if len(names) == 0 || slices.Contains(names, wildcard) {
		changed = ts.wildcard
		ts.wildcard, ts.complete = false, false
	}
	for _, n := range names {
		if _, ok := ts.names[n]; ok {
			delete(ts.names, n)
			changed = true
			if _, sent := ts.sentNames[n]; sent {
				ts.dropped[n] = struct{}{}
				ts.leave(n)
			}
		}
	}
	unwanted := func(n string) bool { return !ts.wants(n) }
	maps.DeleteFunc(ts.accepted, func(n string, _ *resource.Resource) bool { return unwanted(n) })
	maps.DeleteFunc(ts.rejected, func(n, _ string) bool { return unwanted(n) })
	maps.DeleteFunc(ts.absent, func(n string, _ struct{}) bool { return unwanted(n) })
	return changed
}

// leave keeps what was accepted of a name that is dropped, for a short while.
func (ts *typeState) leave(name string) {
	delete(ts.again, name)
	if !ts.sotw {
		return
	}
	if now := time.Now(); now.Sub(ts.cleared) >= leftFor {
		ts.cleared = now
		maps.DeleteFunc(ts.left, func(_ string, old departed) bool { return now.Sub(old.at) >= leftFor })
	}
	if r := ts.accepted[name]; r != nil {
		ts.left[name] = departed{r, time.Now()}
	}
}

// settled reports whether everything subscribed was answered.
func (ts *typeState) settled() bool {
	if ts.wildcard && !ts.complete {
		return false
	}
	for n := range ts.names {
		_, absent := ts.absent[n]
		_, rejected := ts.rejected[n]
		if ts.accepted[n] == nil && !absent && !rejected {
			return false
		}
	}
	return true
}

// asking are the names that the next request has the stream ask for: of those that were
// dropped it takes leave first, and one that is wanted again is asked for in the request
// after that. A server takes no notice of a name that it is told nothing new of.
func (ts *typeState) asking() map[string]struct{} {
	names := maps.Clone(ts.names)
	for n := range ts.dropped {
		delete(names, n)
	}
	return names
}

// pendingNames returns the difference between what the next request asks for and what this
// stream asked for.
func (ts *typeState) pendingNames() (subscribe, unsubscribe []string) {
	if ts.wildcard && !ts.sentWildcard {
		subscribe = append(subscribe, wildcard)
	}
	if !ts.wildcard && ts.sentWildcard {
		unsubscribe = append(unsubscribe, wildcard)
	}
	names := ts.asking()
	for n := range names {
		if _, ok := ts.sentNames[n]; !ok {
			subscribe = append(subscribe, n)
		}
	}
	for n := range ts.sentNames {
		if _, ok := names[n]; !ok {
			unsubscribe = append(unsubscribe, n)
		}
	}
	slices.Sort(subscribe)
	slices.Sort(unsubscribe)
	return subscribe, unsubscribe
}

// asked records that the stream now knows the subscription and the oldest reply.
func (ts *typeState) asked() {
	ts.requested, ts.sentWildcard = true, ts.wildcard
	ts.sentNames = ts.asking()
	clear(ts.dropped)
	if len(ts.replies) > 0 {
		ts.replies = ts.replies[1:]
	}
}

// oldest returns the reply to send next, or nil.
func (ts *typeState) oldest() *reply {
	if len(ts.replies) == 0 {
		return nil
	}
	return &ts.replies[0]
}

// verdict counts repeated rejections of one content and returns how long the
// answer to the newest must wait.
func (ts *typeState) verdict(bad map[string]string) time.Duration {
	if len(bad) == 0 {
		ts.streak, ts.lastBad = 0, ""
		return 0
	}
	keys := slices.Sorted(maps.Keys(bad))
	for i, n := range keys {
		keys[i] = n + "@" + bad[n]
	}
	fingerprint := strings.Join(keys, " ")
	if fingerprint != ts.lastBad {
		ts.streak, ts.lastBad = 0, fingerprint
		return 0
	}
	ts.streak++
	return min(5*time.Second, 50*time.Millisecond<<min(ts.streak, 10))
}
