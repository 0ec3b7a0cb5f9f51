package client

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// of answers for a type with bodies as they are.
func (s *scripted) of(url, nonce string, bodies ...*anypb.Any) {
	s.say <- &discoveryv3.DiscoveryResponse{TypeUrl: url, Nonce: nonce, VersionInfo: nonce, Resources: bodies}
	synctest.Wait()
}

func wrapped(t *testing.T, r *discoveryv3.Resource) *anypb.Any {
	body, err := anypb.New(r)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// A resource whose name cannot be read may be any of those that were there: its response says of
// none that it is gone.
func TestNamelessInTheStateOfTheWorld(t *testing.T) {
	for name, damaged := range map[string]*anypb.Any{
		"no name":          ls("", "1", "").Body,
		"a damaged body":   {TypeUrl: lds, Value: []byte{0xff}},
		"a heartbeat":      wrapped(t, &discoveryv3.Resource{}),
		"a wrapper of one": wrapped(t, &discoveryv3.Resource{Version: "2", Resource: ls("in", "2", "").Body}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{say: make(chan *discoveryv3.DiscoveryResponse)}
				m := newMirror()
				run(t, m, Config{Servers: []Server{newPlane(t, "cp", s).server()}, SotW: true})
				s.of(lds, "1", ls("in", "1", "").Body, ls("out", "1", "").Body)
				s.of(lds, "2", damaged, ls("out", "2", "").Body)
				if d := m.differs([]*resource.Resource{ls("in", "1", ""), ls("out", "2", "")}); d != "" {
					t.Error(d)
				}
				s.of(lds, "3", ls("out", "2", "").Body)
				if got := m.names(lds); !slices.Equal(got, []string{"out"}) {
					t.Errorf("after a whole response: %v", got)
				}
			})
		})
	}
}

// TestTypesNobodyAskedFor: a server that sends one type after the other has nothing remembered of them, and does
// not fill the log.
func TestTypesNobodyAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{say: make(chan *discoveryv3.DiscoveryResponse)}
		m := newMirror()
		var said strings.Builder
		c, stop := run(t, m, Config{Servers: []Server{newPlane(t, "cp", s).server()}, SotW: true, Log: slog.New(slog.NewTextHandler(&said, nil))})
		before := len(c.Status().Types)
		for i := range 100 {
			s.of(fmt.Sprintf("type.googleapis.com/unknown.%d", i), "1")
		}
		s.of(lds, "1", ls("in", "1", "").Body)
		if after := len(c.Status().Types); after != before || !slices.Equal(m.names(lds), []string{"in"}) {
			t.Errorf("%d types, %d before; listeners %v", after, before, m.names(lds))
		}
		stop()
		if n := strings.Count(said.String(), "was not asked for"); n != 1 {
			t.Errorf("it is said %d times", n)
		}
	})
}
