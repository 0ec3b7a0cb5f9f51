package ratelimit

import (
	"container/list"
	"crypto/sha256"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Descriptor gives the requests that it describes a bucket of their own.
type Descriptor struct {
	Entries []Entry
	Bucket  tokenbucket.Spec
	// Shadow: requests over the limit are counted, and let pass.
	Shadow bool
}

// Entry is one entry of a descriptor. An empty Value stands for any, and makes a bucket
// for each.
type Entry struct{ Key, Value string }

// wildcard tells whether the descriptor stands for many.
func (d *Descriptor) wildcard() bool {
	for _, e := range d.Entries {
		if e.Value == "" {
			return true
		}
	}
	return false
}

// encoded is the descriptor as requests' descriptors are.
func (d *Descriptor) encoded() string {
	var b []byte
	for _, e := range d.Entries {
		b = route.AppendDescriptorEntry(b, e.Key, e.Value)
	}
	return string(b)
}

func (d *Descriptor) String() string {
	var b strings.Builder
	for i, e := range d.Entries {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s=%q", e.Key, e.Value)
	}
	return b.String()
}

// matches compares a request's descriptor.
func (d *Descriptor) matches(b []byte) bool {
	for _, e := range d.Entries {
		key, value, rest, ok := route.CutDescriptorEntry(b)
		if !ok || string(key) != e.Key || e.Value != "" && string(value) != e.Value {
			return false
		}
		b = rest
	}
	return len(b) == 0
}

// buckets is what a limit counts with: the process has them, or each connection, where
// they are those of the first limit that it met.
type buckets struct {
	defaultBucket *bucket // nil for none
	exact         map[string]*bucket
	wildcards     []*dynamicDescriptors
	// defaultForUnmatched: only requests without a descriptor of these take of defaultBucket.
	defaultForUnmatched bool
}

// bucket is one bucket.
type bucket struct {
	*tokenbucket.Bucket
	size   uint32
	rate   float64 // tokens a second
	shadow bool
	// untold is a default bucket without tokens, of which clients are told nothing, as
	// by Envoy.
	untold bool
}

func newBucket(s tokenbucket.Spec, shadow bool) *bucket {
	return &bucket{tokenbucket.New(s), s.Max, float64(s.PerFill) / s.Interval.Seconds(), shadow, false}
}

func newBuckets(l *Config) *buckets {
	out := &buckets{exact: make(map[string]*bucket, len(l.Descriptors)), defaultForUnmatched: l.DefaultForUnmatched}
	if l.Bucket != nil {
		out.defaultBucket = newBucket(*l.Bucket, false)
		out.defaultBucket.untold = l.Bucket.Max == 0
	}
	for i := range l.Descriptors {
		if d := &l.Descriptors[i]; d.wildcard() {
			out.wildcards = append(out.wildcards, &dynamicDescriptors{
				descriptor: d, most: max(1, l.MaxDynamic), members: map[string]*list.Element{}, recent: list.New(),
			})
		} else {
			out.exact[d.encoded()] = newBucket(d.Bucket, d.Shadow)
		}
	}
	return out
}

// of is the bucket for a request's descriptor, nil when it has none.
func (s *buckets) of(descriptor []byte) *bucket {
	if b := s.exact[string(descriptor)]; b != nil {
		return b
	}
	for _, f := range s.wildcards {
		if f.descriptor.matches(descriptor) {
			return f.of(descriptor)
		}
	}
	return nil
}

// dynamicDescriptors are the buckets of a wildcard descriptor. When there are too many,
// the one that was not used for longest goes, and with it what it had counted.
type dynamicDescriptors struct {
	descriptor *Descriptor
	most       int

	mu      sync.Mutex
	members map[string]*list.Element // of *member, by the key of appendKey
	recent  *list.List
}

type member struct {
	key    string
	bucket *bucket
}

// longestKey bounds what a client has kept of a descriptor: a longer one is known by its
// SHA-256.
const longestKey = 128

// hashed is before a SHA-256. Descriptors begin with a zero, the first of four bytes of a
// length, so that none is taken for a sum.
const hashed = 1

func appendKey(b []byte, descriptor []byte) []byte {
	if len(descriptor) <= longestKey {
		return append(b, descriptor...)
	}
	sum := sha256.Sum256(descriptor)
	return append(append(b, hashed), sum[:]...)
}

// of allocates only for a descriptor that it has not got.
func (f *dynamicDescriptors) of(descriptor []byte) *bucket {
	var room [longestKey]byte
	key := appendKey(room[:0], descriptor)
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.members[string(key)]; e != nil {
		f.recent.MoveToFront(e)
		return e.Value.(*member).bucket
	}
	if f.recent.Len() >= f.most {
		last := f.recent.Back()
		delete(f.members, f.recent.Remove(last).(*member).key)
	}
	m := &member{string(key), newBucket(f.descriptor.Bucket, f.descriptor.Shadow)}
	f.members[m.key] = f.recent.PushFront(m)
	return m.bucket
}

// claim is a bucket that a request's descriptor has found.
type claim struct {
	*bucket
	headers route.RateLimitHeaders
	hits    uint32
	refund  bool
}

// claims finds the buckets of all of a request's descriptors, the slowest first, so that
// what the strictest refuses costs the others nothing. The order is Envoy's.
func (l *limit) claims(c *filter.Context, s *buckets, out []claim) []claim {
	if len(l.Descriptors) == 0 {
		return out
	}
	d := route.Described{Request: c.Request, Client: c.Client, Selected: c.Selected, Source: l.Source}
	if len(l.RateLimits) > 0 {
		const ownStage = 0 // they have none
		return l.describe(c, s, &d, l.RateLimits, ownStage, out)
	}
	own, host := c.Selected.RateLimits(l.HostRateLimits)
	return l.describe(c, s, &d, host, l.Stage, l.describe(c, s, &d, own, l.Stage, out))
}

func (l *limit) describe(c *filter.Context, s *buckets, d *route.Described, limits []route.RateLimit, stage uint32, out []claim) []claim {
	for i := range limits {
		r := &limits[i]
		if r.Stage != stage {
			continue
		}
		b, ok := r.AppendDescriptor((*c.Scratch)[:0], d)
		if *c.Scratch = b; !ok {
			continue
		}
		found := s.of(b)
		if found == nil {
			continue
		}
		hits := uint32(1)
		if r.Hits != nil {
			hits = *r.Hits
		} else if r.HitsFormat != "" {
			if hits, ok = hitsBy(l.hits[i], c); !ok {
				continue
			}
		}
		out = append(out, claim{found, r.Headers, hits, r.Refund})
		for j := len(out) - 1; j > 0 && out[j].rate < out[j-1].rate; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

// mostHits is how many tokens a request takes at most.
const mostHits = 1_000_000_000

// hitsBy is the number that an operator has for the request, a fraction rounded down as by Envoy; ok
// is false where it is none.
func hitsBy(f *telemetry.Format, c *filter.Context) (n uint32, ok bool) {
	b, ok := f.AppendValue((*c.Scratch)[:0], c.Record())
	*c.Scratch = b
	if !ok {
		return 0, false
	}
	text := strings.TrimSpace(message.View(b))
	if strings.ContainsAny(text, "xX") && !strings.ContainsAny(text, "pP") {
		text += "p0" // as Go has it of hexadecimal numbers
	}
	v, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil || v < 0 || v > mostHits || strings.Contains(text, "_"):
		return 0, false
	case math.IsNaN(v): // a number to Envoy, which refuses it
		return 0, true
	}
	return uint32(v), true
}
