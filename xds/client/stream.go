package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

const (
	// answerTimeout bounds the wait for the first response of a stream, so
	// that a control plane that accepts streams and does not answer is left
	// for another.
	answerTimeout = 20 * time.Second
	// sendTimeout bounds the wait until a server has read what is sent, whatever it says
	// meanwhile: new names are asked for after it.
	sendTimeout = time.Minute
	dialTimeout = 10 * time.Second
	// maxMessage is far above gRPC's 4 MiB: a state-of-the-world list cannot
	// be split.
	maxMessage = 64 << 20
)

// wire is a stream of either protocol.
type wire interface {
	recv() (*answer, error)
	// request is the message of the type's subscription changes and reply. It is called with
	// Client.mu held.
	request(ts *typeState, first bool) proto.Message
	// send is not: it waits for as long as nobody reads what was sent before, of which gRPC
	// takes 64 KiB, and the names of a mesh are more.
	send(m proto.Message) error
}

// link moves the messages of a stream, each way on its own: a server that does not read
// before it is read from is not one that has stopped.
type link struct {
	in    chan *answer
	out   chan []proto.Message // takes some while none are under way
	sent  chan error
	ended chan error
}

func newLink(ctx context.Context, w wire) *link {
	l := &link{in: make(chan *answer), out: make(chan []proto.Message, 1), sent: make(chan error, 1), ended: make(chan error, 1)}
	go func() {
		for {
			a, err := w.recv()
			if err != nil {
				l.ended <- err
				return
			}
			select {
			case l.in <- a:
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() {
		for {
			select {
			case ms := <-l.out:
				var err error
				for _, m := range ms {
					if err = w.send(m); err != nil {
						break
					}
				}
				l.sent <- err
			case <-ctx.Done():
				return
			}
		}
	}()
	return l
}

// stream runs one stream to its end and reports whether it was ever answered, or need not be.
func (c *Client) stream(ctx context.Context, srv Server) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, closer, err := c.connect(ctx, srv)
	if closer != nil {
		defer closer.Close()
	}
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	for _, ts := range c.order {
		ts.begin()
	}
	c.mu.Unlock()

	l, sending := newLink(ctx, w), false
	unanswered := time.NewTimer(answerTimeout)
	unanswered.Stop() // until something has been asked
	defer unanswered.Stop()
	unread := time.NewTimer(sendTimeout)
	unread.Stop() // until something is on its way
	defer unread.Stop()
	later := time.NewTimer(time.Hour)
	defer later.Stop()
	first, heard := true, false
	for {
		var wait time.Duration
		if !sending {
			var owed []proto.Message
			if owed, wait = c.owed(w, first); len(owed) > 0 {
				if first {
					unanswered.Reset(answerTimeout)
				}
				first, sending = false, true
				l.out <- owed
				unread.Reset(sendTimeout)
			}
		}
		c.handKept()
		if next := c.handBack(); wait == 0 || next > 0 && next < wait {
			wait = next
		}
		later.Stop()
		if wait > 0 {
			later.Reset(wait)
		}
		select {
		case err := <-l.sent:
			unread.Stop()
			// Of io.EOF the reason comes from the receiver.
			if sending = false; err != nil && !errors.Is(err, io.EOF) {
				return answered, err
			}
		case a := <-l.in:
			if !heard {
				answered, heard = true, true
				unanswered.Stop()
				c.connected(srv, a)
				c.forgetKept()
			}
			c.handle(srv, a)
		case err := <-l.ended:
			if errors.Is(err, io.EOF) {
				err = errors.New("the control plane ended the stream")
			}
			return answered, err
		case <-unanswered.C:
			if sending || c.answersAlways() {
				return false, fmt.Errorf("no answer within %v", answerTimeout)
			}
			answered = true
			c.connected(srv, &answer{})
		case <-unread.C:
			return answered, fmt.Errorf("what is sent has not been read for %v", sendTimeout)
		case <-c.wake:
		case <-later.C:
		case <-ctx.Done():
			return answered, ctx.Err()
		}
	}
}

// connect opens a stream. Names that are asked for meanwhile come from the cache.
func (c *Client) connect(ctx context.Context, srv Server) (w wire, closer io.Closer, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		dctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		conn, e := srv.Dial(dctx)
		switch {
		case e != nil:
			err = fmt.Errorf("connect: %w", e)
			return
		case conn == nil:
			err = errors.New("connect: there is no connection yet")
			return
		}
		closer, _ = conn.(io.Closer)
		if w, e = c.open(ctx, conn); e != nil {
			err = fmt.Errorf("open discovery stream: %w", e)
		}
	}()
	c.meanwhile(done)
	return w, closer, err
}

// answersAlways tells whether a server that is asked answers: of names that do not exist yet it
// says nothing, and in the state of the world it may say nothing to a client that comes back
// with the versions that it has (xDS protocol, "Resource type instance version"). One that is dead
// is found by its connection. The others are asked first: one of them may have something to say.
func (c *Client) answersAlways() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cfg.Type != "" && !c.typeLocked(c.cfg.Type).wildcard {
		return false
	}
	return !c.cfg.SotW || c.silent < len(c.cfg.Servers)-1 ||
		slices.ContainsFunc(c.order, func(ts *typeState) bool { return ts.requested && ts.wildcard && ts.sotwVersion == "" })
}

// methods are those of the services of resources: of the state of the world, and of increments.
var methods = map[string][2]string{
	"": {
		"/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
		"/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
	},
	resource.ClusterType: {
		"/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
		"/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
	},
	resource.EndpointType: {
		"/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints",
		"/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints",
	},
	resource.ListenerType: {
		"/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners",
		"/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners",
	},
	resource.RouteType: {
		"/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes",
		"/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
	},
}

func (c *Client) open(ctx context.Context, conn grpc.ClientConnInterface) (wire, error) {
	method := methods[c.cfg.Type][1]
	if c.cfg.SotW {
		method = methods[c.cfg.Type][0]
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{StreamName: path.Base(method), ServerStreams: true, ClientStreams: true},
		method, grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return nil, err
	}
	if c.cfg.SotW {
		return &sotwWire{stream: &grpc.GenericClientStream[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]{ClientStream: s}, client: c}, nil
	}
	return &deltaWire{stream: &grpc.GenericClientStream[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]{ClientStream: s}, client: c}, nil
}

func (c *Client) connected(srv Server, a *answer) {
	c.mu.Lock()
	if !c.status.Connected {
		c.status.Connected, c.status.Since = true, time.Now()
	}
	c.status.Server, c.status.Identifier = srv.Name, a.identifier
	c.mu.Unlock()
	c.log.Info("control plane connected", "peer", srv.Name, "identifier", a.identifier)
}

// forgetKept forgets what the cache has besides: from the first answer on, everything is asked
// of a server that is there.
func (c *Client) forgetKept() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ts := range c.order {
		ts.kept = nil
	}
}

// owed are the messages to send, clusters first, and how long the earliest delayed answer still
// waits. They are all made at once: what comes from now on is answered after them.
func (c *Client) owed(w wire, first bool) (out []proto.Message, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, ts := range c.order {
		for {
			sub, unsub := ts.pendingNames()
			changed := len(sub)+len(unsub) > 0
			if !changed && len(ts.replies) == 0 {
				break
			}
			// A changed subscription carries a delayed NACK with it: on its
			// own it would read as an ACK. A newer reply releases it too.
			if !changed && len(ts.replies) == 1 {
				if d := ts.replies[0].notBefore.Sub(now); d > 0 {
					if wait == 0 || d < wait {
						wait = d
					}
					break
				}
			}
			out = append(out, w.request(ts, first && len(out) == 0))
			ts.asked()
		}
	}
	return out, wait
}
