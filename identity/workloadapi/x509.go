package workloadapi

import (
	"context"
	"errors"
	"io"
	"time"

	workloadv1 "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// workloadServer is the SPIFFE Workload API's X.509 profile. The JWT and WIT
// profiles answer Unimplemented.
type workloadServer struct {
	workloadv1.UnimplementedSpiffeWorkloadAPIServer
	s *Server
}

// pendingWait bounds how long a first answer waits for an SVID that is being
// issued: an application that starts with its host need not try again.
const pendingWait = 5 * time.Second

// FetchX509SVID implements the Workload API: the caller's SVIDs, keys and
// bundles, whole, now and after each change.
func (w *workloadServer) FetchX509SVID(_ *workloadv1.X509SVIDRequest, stream workloadv1.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	return w.s.each(stream.Context(), "FetchX509SVID", (*identities).fingerprint, func(i *identities) error {
		m, err := svidResponse(i)
		if err != nil {
			return err
		}
		return stream.Send(m)
	})
}

// FetchX509Bundles implements the Workload API: the bundles without SVIDs, for
// callers that have an identity.
func (w *workloadServer) FetchX509Bundles(_ *workloadv1.X509BundlesRequest, stream workloadv1.SpiffeWorkloadAPI_FetchX509BundlesServer) error {
	// SVIDs do not matter here, nor their renewal.
	only := func(i *identities) fingerprint { return (&identities{bundles: i.bundles}).fingerprint() }
	return w.s.each(stream.Context(), "FetchX509Bundles", only, func(i *identities) error {
		m := &workloadv1.X509BundlesResponse{Bundles: map[string][]byte{}}
		for _, td := range i.trustDomains() {
			m.Bundles[tdID(td)] = der(i.bundles[td].Certificates)
		}
		return stream.Send(m)
	})
}

func svidResponse(i *identities) (*workloadv1.X509SVIDResponse, error) {
	m := &workloadv1.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
	for _, td := range i.trustDomains() {
		m.FederatedBundles[tdID(td)] = der(i.bundles[td].Certificates)
	}
	for _, o := range i.own {
		key, err := o.pkcs8()
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		td := o.ID.TrustDomain().Name()
		m.Svids = append(m.Svids, &workloadv1.X509SVID{
			SpiffeId: o.ID.String(), X509Svid: der(o.Chain), X509SvidKey: key,
			Bundle: der(i.bundles[td].Certificates), Hint: o.hint,
		})
		// The own one goes with the SVID.
		delete(m.FederatedBundles, tdID(td))
	}
	return m, nil
}

// each calls send with the caller's identities, at once and after each change,
// of what look sees in them, until the caller has none or the call ends.
func (s *Server) each(ctx context.Context, method string, look func(*identities) fingerprint, send func(*identities) error) error {
	c, ok := CallerFromContext(ctx)
	if !ok {
		return status.Error(codes.Internal, "the caller is not known")
	}
	patience := time.NewTimer(s.patience)
	defer patience.Stop()
	var last fingerprint
	sent, waited := false, false
	for {
		w := s.world.Load()
		i, err := s.identitiesOf(c, w)
		if err == nil && len(i.own) == 0 && (sent || waited) {
			err = i.errPending()
		}
		if err != nil {
			s.log.Info("refused", "method", method, "caller", c.String(), "reason", status.Convert(err).Message())
			return err
		}
		if fp := look(i); len(i.own) > 0 && (!sent || fp != last) {
			if err := send(i); err != nil {
				return err
			}
			s.log.Info("served", "method", method, "caller", c.String(), "svids", i.describe())
			last, sent = fp, true
		}
		select {
		case <-w.changed:
		case <-patience.C:
			waited = true
		case <-ctx.Done():
			return ending(ctx)
		}
	}
}

// ending is how a call ends that its caller, or the server, ends.
func ending(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return status.Error(codes.Canceled, "the call was ended")
	}
	return status.FromContextError(ctx.Err()).Err()
}

// endOf is how a stream ends whose caller has closed its side, or gone.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
