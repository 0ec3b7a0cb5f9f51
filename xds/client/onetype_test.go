package client

import (
	"context"
	"path"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// apart is go-control-plane with a service for each type, and none for all.
type apart struct{ *foreign }

func (a apart) register(s *grpc.Server) {
	for url, names := range methods {
		if url == "" {
			continue
		}
		service, one, many := path.Base(path.Dir(names[0])), path.Base(names[0]), path.Base(names[1])
		s.RegisterService(&grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
			{StreamName: one, ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				return a.sotw.StreamHandler(&grpc.GenericServerStream[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]{ServerStream: s}, url)
			}},
			{StreamName: many, ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				return a.delta.DeltaStreamHandler(&grpc.GenericServerStream[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]{ServerStream: s}, url)
			}},
		}}, a)
	}
}

// Each type has a stream of its own, whose first request names the node; what one brings is
// asked for on another.
func TestStreamsOfOneType(t *testing.T) {
	protocols(t, func(t *testing.T, sotw bool) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			f := newForeign(ctx)
			f.publish(t, mesh())
			p := newPlane(t, "cp", apart{f})
			m := newMirror()
			own := map[string]*Client{}
			for _, url := range resource.PushOrder {
				c, err := New(Config{Servers: []Server{p.server()}, Node: Node{ID: "n1"}, Handler: m, SotW: sotw, Type: url})
				if err != nil {
					t.Fatal(err)
				}
				own[url] = c
			}
			m.subscribe = func(url string, names ...string) { own[url].Subscribe(url, names...) }
			m.unsubscribe = func(url string, names ...string) { own[url].Unsubscribe(url, names...) }
			for _, c := range own {
				done := make(chan error, 1)
				go func() { done <- c.Run(ctx) }()
				defer func() { cancel(); <-done }()
			}
			eventually(t, func() string { return m.lacks(mesh()) })
			for _, next := range [][]*resource.Resource{
				with(mesh(), ep("a", "2")),
				with(mesh(), cl("c", "1"), ep("c", "1"), rt("r", "2", "c")),
				without(without(mesh(), lds, "out"), rds, "r"),
				mesh(),
			} {
				f.publish(t, next)
				eventually(t, func() string { return m.lacks(next) })
			}
			for url, c := range own {
				<-c.Synced()
				if st := c.Status(); !st.Connected {
					t.Errorf("%s: %+v", url, st)
				}
			}
			// What was accepted stays while the server is away.
			p.stop()
			time.Sleep(time.Minute)
			if lacks := m.lacks(mesh()); lacks != "" {
				t.Error(lacks)
			}
			f.publish(t, with(mesh(), rt("r", "3", "b")))
			p.start()
			eventually(t, func() string { return m.lacks(with(mesh(), rt("r", "3", "b"))) })
		})
	})
}

// A stream that nothing is asked on is not left for want of an answer.
func TestNothingIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		f := newForeign(ctx)
		f.publish(t, mesh())
		p := newPlane(t, "cp", apart{f})
		m := newMirror()
		c, _ := run(t, m, Config{Servers: []Server{p.server()}, Type: eds})
		time.Sleep(time.Hour)
		p.mu.Lock()
		dials := p.dials
		p.mu.Unlock()
		if dials != 1 || c.Status().LastError != "" {
			t.Errorf("%d streams: %+v", dials, c.Status())
		}
		c.Subscribe(eds, "a")
		eventually(t, func() string { return m.lacks([]*resource.Resource{ep("a", "1")}) })
	})
}

func TestNoServiceOfTheType(t *testing.T) {
	if _, err := New(Config{Servers: []Server{{Name: "cp", Dial: newPlane(t, "cp", &capture{}).server().Dial}}, Node: Node{ID: "n"},
		Handler: newMirror(), Type: resource.SecretType}); err == nil {
		t.Error("secrets have a stream")
	}
}
