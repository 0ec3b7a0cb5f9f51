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
	// kept are those of the cache that nobody has asked for, until a server answers.
	kept map[string]*resource.Resource
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
	// were accepted or came since.
	left    map[string]departed
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
	// overtaken is set when an answer without it came after the newest request without its
	// name: its server may have taken that, and the one which asks for it again, for old. Then
	// it takes no notice of them, and does not send again what it has sent.
	overtaken bool
}

// leftFor is how long a resource of the state of the world is kept once it was dropped.
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
		dropped: map[string]struct{}{}, left: map[string]departed{},
	}
}

// begin forgets what belongs to the previous stream.
func (ts *typeState) begin() {
	ts.requested, ts.sentWildcard, ts.nonce, ts.replies = false, false, "", nil
	ts.sentNames, ts.dropped = map[string]struct{}{}, map[string]struct{}{}
	clear(ts.left) // it sends all that is asked for on it
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
				ts.leave(ts.accepted[n])
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
func (ts *typeState) leave(r *resource.Resource) {
	if ts.sotw && r != nil {
		ts.left[r.Name] = departed{Resource: r, at: time.Now()}
	}
}

// accept keeps what the Handler has taken. Its name may have been dropped meanwhile, and asked
// for again: then it comes once more.
func (ts *typeState) accept(r *resource.Resource) {
	if _, dropped := ts.dropped[r.Name]; dropped {
		ts.leave(r)
	} else if ts.wants(r.Name) {
		ts.accepted[r.Name] = r
	}
}

// overtakes notes what of those that left is in an answer, and what the answer may have
// overtaken the dropping of.
func (ts *typeState) overtakes(a *answer) {
	for n, old := range ts.left {
		_, comes := a.seen[n]
		if a.full || comes && ts.wants(n) {
			delete(ts.left, n) // it has come, or is gone
			continue
		}
		old.overtaken = true
		ts.left[n] = old
	}
}

// comeBack are those that left, are wanted again and will not be sent again. Those that left
// long ago are forgotten; wait is when the next of the others is to be.
func (ts *typeState) comeBack() (out []*resource.Resource, wait time.Duration) {
	for _, n := range slices.Sorted(maps.Keys(ts.left)) {
		old := ts.left[n]
		_, sent := ts.sentNames[n]
		switch left := leftFor - time.Since(old.at); {
		case left <= 0:
			delete(ts.left, n)
		case old.overtaken && sent && ts.wants(n) && ts.accepted[n] == nil:
			out = append(out, old.Resource)
			delete(ts.left, n)
		case wait == 0 || left < wait:
			wait = left
		}
	}
	return out, wait
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
	for n, old := range ts.left {
		if _, sent := ts.sentNames[n]; !sent {
			old.overtaken = false
			ts.left[n] = old
		}
	}
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
