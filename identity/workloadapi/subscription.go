package workloadapi

import (
	"fmt"
	"maps"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// wildcard subscribes to whatever the caller may have.
	wildcard = "*"
	// maxNames and maxName bound what one stream can make the agent remember.
	maxNames = 1024
	maxName  = 2048
)

// subscription is what one stream asked for and was sent.
type subscription struct {
	names map[string]bool
	all   bool
	sent  map[string]string // version by name
	told  map[string]string // why not, by name
}

func newSubscription() *subscription {
	return &subscription{names: map[string]bool{}, sent: map[string]string{}, told: map[string]string{}}
}

// add subscribes to a name; one that is added again is sent again.
func (s *subscription) add(name string) error {
	if name == wildcard {
		s.all = true
		return nil
	}
	if len(name) > maxName {
		return status.Errorf(codes.InvalidArgument, "a secret's name has %d bytes, at most %d are allowed", len(name), maxName)
	}
	if len(s.names) >= maxNames && !s.names[name] {
		return status.Errorf(codes.ResourceExhausted, "a stream may ask for %d secrets", maxNames)
	}
	s.names[name] = true
	delete(s.sent, name)
	delete(s.told, name)
	return nil
}

func (s *subscription) remove(name string) {
	if name == wildcard {
		s.all = false
		return
	}
	delete(s.names, name)
	if !s.all {
		delete(s.sent, name)
	}
	delete(s.told, name)
}

// answer is what a stream is due.
type answer struct {
	send []secret
	// refused were not said before.
	refused []refusal
	// withdrawn were sent, and the caller may have them no longer.
	withdrawn []string
	// possible counts the names that the caller may have, or wait for.
	possible int
}

type refusal struct{ name, reason string }

// due compares what the caller may have now with what it was sent.
func (s *subscription) due(i *identities) answer {
	var a answer
	names := maps.Clone(s.names)
	if s.all {
		for _, n := range i.everything() {
			names[n] = true
		}
		for n := range s.sent {
			names[n] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		sec, err := i.secret(name)
		switch {
		case err == nil:
			a.possible++
			delete(s.told, name)
			if s.sent[name] != sec.version {
				a.send = append(a.send, sec)
			}
		case err == errPendingSecret:
			a.possible++
		default:
			if s.sent[name] != "" {
				a.withdrawn = append(a.withdrawn, name)
				delete(s.sent, name)
			}
			if s.told[name] != err.Error() {
				a.refused = append(a.refused, refusal{name, err.Error()})
				s.told[name] = err.Error()
			}
		}
	}
	if s.all {
		a.possible++
	}
	return a
}

// took notes what was sent.
func (s *subscription) took(send []secret) {
	for _, sec := range send {
		s.sent[sec.name] = sec.version
	}
}

// errors are the refusals as xDS carries them.
func (a answer) errors() []*discoveryv3.ResourceError {
	var out []*discoveryv3.ResourceError
	for _, r := range a.refused {
		out = append(out, &discoveryv3.ResourceError{
			ResourceName: &discoveryv3.ResourceName{Name: r.name},
			ErrorDetail:  &rpcstatus.Status{Code: int32(codes.PermissionDenied), Message: r.reason},
		})
	}
	return out
}

// denied is the end of a stream none of whose names the caller may have.
func (a answer) denied() error {
	text := "no secret is asked for that this caller may have"
	for n, r := range a.refused {
		if n == 3 {
			text += fmt.Sprintf("; and %d more", len(a.refused)-n)
			break
		}
		text += fmt.Sprintf("; %s: %s", short(r.name), r.reason)
	}
	return status.Error(codes.PermissionDenied, text)
}

func (a answer) describe() []string {
	var out []string
	for _, sec := range a.send {
		out = append(out, sec.name+": "+sec.about)
	}
	return out
}
