package workloadapi

import (
	"context"
	"strconv"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// secretServer is Envoy's secret discovery service, state of the world and
// incremental. A secret is sent when it is asked for and when it has changed,
// and not otherwise; one that was rejected is not sent again until it changes.
type secretServer struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	s *Server
}

// call is one stream, whatever its protocol.
type call struct {
	s      *Server
	caller *Caller
	method string
	sub    *subscription
	// begun: a request has come. nonce is of the last response, 0 before one.
	begun bool
	nonce uint64
}

func (s *Server) newCall(ctx context.Context, method string) (*call, error) {
	c, ok := CallerFromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "the caller is not known")
	}
	return &call{s: s, caller: c, method: method, sub: newSubscription()}, nil
}

// StreamSecrets implements the state-of-the-world protocol. What the caller may
// not have is named in resource_errors; where it may have nothing of what it
// asks for, or no longer has what it was sent, the stream ends with
// PermissionDenied, for an Envoy shows that and not the other.
func (d *secretServer) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	c, err := d.s.newCall(stream.Context(), "StreamSecrets")
	if err != nil {
		return err
	}
	return follow(stream.Context(), c, stream.Recv, c.request, func(a answer) error {
		if a.possible == 0 && len(c.sub.names) > 0 || len(a.withdrawn) > 0 {
			return a.denied()
		}
		return stream.Send(c.response(a))
	})
}

// request takes one state-of-the-world request.
func (c *call) request(r *discoveryv3.DiscoveryRequest) error {
	if err := c.check(r.GetTypeUrl(), r.GetErrorDetail()); err != nil {
		return err
	}
	first := !c.begun
	c.begun = true
	// An answer to an earlier response: the newer one is on its way, and what
	// is asked for then is current.
	if !first && r.GetResponseNonce() != c.lastNonce() {
		return nil
	}
	names := map[string]bool{}
	for _, n := range r.GetResourceNames() {
		names[n] = true
	}
	if first && len(names) == 0 {
		names[wildcard] = true
	}
	// Without names after the first request, what was asked for stays the
	// wildcard if it was, and otherwise is nothing.
	keep := c.sub.all && len(names) == 0
	for n := range c.sub.names {
		if !names[n] {
			c.sub.remove(n)
		}
	}
	c.sub.all = keep || names[wildcard]
	for n := range names {
		if !c.sub.names[n] {
			if err := c.sub.add(n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *call) response(a answer) *discoveryv3.DiscoveryResponse {
	m := &discoveryv3.DiscoveryResponse{
		TypeUrl: secretType, Nonce: c.nextNonce(), VersionInfo: c.nonceVersion(a), ResourceErrors: a.errors(),
	}
	for _, sec := range a.send {
		m.Resources = append(m.Resources, sec.any)
	}
	return m
}

// nonceVersion is a version for people: xDS has one for a response, not for each
// secret, in this protocol.
func (c *call) nonceVersion(a answer) string {
	if len(a.send) == 1 {
		return a.send[0].version
	}
	return c.lastNonce()
}

// DeltaSecrets implements the incremental protocol. What the caller may not
// have, or no longer, is among removed_resources, with the reason in
// resource_errors.
func (d *secretServer) DeltaSecrets(stream secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	c, err := d.s.newCall(stream.Context(), "DeltaSecrets")
	if err != nil {
		return err
	}
	return follow(stream.Context(), c, stream.Recv, c.deltaRequest, func(a answer) error {
		return stream.Send(c.deltaResponse(a))
	})
}

// deltaRequest takes one incremental request.
func (c *call) deltaRequest(r *discoveryv3.DeltaDiscoveryRequest) error {
	if err := c.check(r.GetTypeUrl(), r.GetErrorDetail()); err != nil {
		return err
	}
	first := !c.begun
	c.begun = true
	for _, n := range r.GetResourceNamesUnsubscribe() {
		c.sub.remove(n)
	}
	for _, n := range r.GetResourceNamesSubscribe() {
		if err := c.sub.add(n); err != nil {
			return err
		}
	}
	if !first {
		return nil
	}
	if len(r.GetResourceNamesSubscribe()) == 0 {
		c.sub.all = true
	}
	if len(r.GetInitialResourceVersions()) > maxNames {
		return status.Errorf(codes.ResourceExhausted, "a stream may hold %d secrets", maxNames)
	}
	// What an earlier stream brought need not come again.
	for n, version := range r.GetInitialResourceVersions() {
		if c.sub.names[n] || c.sub.all {
			c.sub.sent[n] = version
		}
	}
	return nil
}

func (c *call) deltaResponse(a answer) *discoveryv3.DeltaDiscoveryResponse {
	m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: secretType, Nonce: c.nextNonce(), ResourceErrors: a.errors()}
	for _, sec := range a.send {
		m.Resources = append(m.Resources, &discoveryv3.Resource{Name: sec.name, Version: sec.version, Resource: sec.any})
	}
	for _, r := range a.refused {
		m.RemovedResources = append(m.RemovedResources, r.name)
	}
	return m
}

// FetchSecrets implements the one-shot form.
func (d *secretServer) FetchSecrets(ctx context.Context, r *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	c, err := d.s.newCall(ctx, "FetchSecrets")
	if err != nil {
		return nil, err
	}
	if err := c.request(r); err != nil {
		return nil, err
	}
	i, err := d.s.identitiesOf(c.caller, d.s.world.Load())
	if err != nil {
		return nil, c.refused(err)
	}
	a := c.sub.due(i)
	switch {
	case a.possible == 0:
		return nil, c.refused(a.denied())
	case len(a.send) == 0 && len(i.pending) > 0:
		return nil, i.errPending()
	}
	c.log(a)
	return c.response(a), nil
}

// follow serves a stream: each request, and each change of what it is about.
func follow[R any](ctx context.Context, c *call, recv func() (R, error), request func(R) error, push func(answer) error) error {
	requests, failed := receive(ctx, recv)
	for {
		w := c.s.world.Load()
		if c.begun {
			i, err := c.s.identitiesOf(c.caller, w)
			if err != nil {
				return c.refused(err)
			}
			if a := c.sub.due(i); len(a.send)+len(a.refused)+len(a.withdrawn) > 0 {
				c.log(a)
				if err := push(a); err != nil {
					return err
				}
				c.sub.took(a.send)
			}
		}
		select {
		case r := <-requests:
			if err := request(r); err != nil {
				return err
			}
		case err := <-failed:
			return err
		case <-w.changed:
		case <-ctx.Done():
			return ending(ctx)
		}
	}
}

// receive reads requests until the stream or ctx ends. The end of the caller's
// side is a nil error.
func receive[R any](ctx context.Context, recv func() (R, error)) (<-chan R, <-chan error) {
	requests, failed := make(chan R), make(chan error, 1)
	go func() {
		for {
			r, err := recv()
			if err != nil {
				failed <- endOf(err)
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	return requests, failed
}

// check refuses a request for another type, and logs a rejection.
func (c *call) check(typeURL string, rejected *rpcstatus.Status) error {
	if typeURL != "" && typeURL != secretType {
		return status.Errorf(codes.InvalidArgument, "type %q is not served here, only %s", clip(typeURL), secretType)
	}
	if rejected != nil {
		c.s.log.Warn("the caller rejected a secret; it is sent again when it changes",
			"caller", c.caller.String(), "method", c.method, "reason", clip(rejected.GetMessage()))
	}
	return nil
}

// clip bounds what a caller can put into the log.
func clip(s string) string {
	if len(s) > 512 {
		return s[:512] + "…"
	}
	return s
}

func (c *call) lastNonce() string {
	if c.nonce == 0 {
		return ""
	}
	return strconv.FormatUint(c.nonce, 10)
}

func (c *call) nextNonce() string {
	c.nonce++
	return c.lastNonce()
}

func (c *call) refused(err error) error {
	c.s.log.Info("refused", "method", c.method, "caller", c.caller.String(), "reason", status.Convert(err).Message())
	return err
}

func (c *call) log(a answer) {
	if len(a.send) > 0 {
		c.s.log.Info("served", "method", c.method, "caller", c.caller.String(), "secrets", a.describe())
	}
	for _, r := range a.refused {
		c.s.log.Info("refused", "method", c.method, "caller", c.caller.String(), "secret", short(r.name), "reason", clip(r.reason))
	}
}
