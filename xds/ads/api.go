package ads

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Client says who opened a stream.
type Client struct {
	// NodeID, Cluster, UserAgent, Version, Features and Metadata are what the
	// node message claims. None of it is proven.
	NodeID    string
	Cluster   string
	UserAgent string
	Version   string
	Features  []string
	Metadata  map[string]any
	// PeerID is the SPIFFE ID proven by the TLS handshake; empty when the
	// server runs without WithPeerID.
	PeerID string
	// RemoteAddr is the transport peer.
	RemoteAddr string
	// Delta is set for the incremental protocol.
	Delta bool
}

// Provider decides what a client may see.
type Provider interface {
	// Open returns the client's view. An error that is a gRPC status ends the
	// stream with it; any other error ends it with Unavailable. The context
	// ends with the stream.
	Open(ctx context.Context, c Client) (View, error)
}

// View is one client's changing set of resources. The session reads Changed
// before Current, so an implementation that stores the new set before it closes
// the old channel loses no change.
type View interface {
	// Current returns the newest set, or nil when there is none yet: then the
	// client is not answered until there is.
	Current() *resource.Set
	// Changed returns a channel that is closed when Current will return
	// something newer than it did when Changed was called.
	Changed() <-chan struct{}
	// Close is called once, when the session ends.
	Close()
}

// Config configures a Server. Only Provider is required.
type Config struct {
	Provider Provider
	// Identifier names this control plane in its responses.
	Identifier string
	Log        *slog.Logger
	Observer   Observer
	// HoldTimeout bounds how long a listener or route waits for its clusters
	// and a removal for unrelated upserts. Default 5 s.
	HoldTimeout time.Duration
	// StreamRate and StreamBurst admit new streams; a stream beyond them ends
	// with ResourceExhausted and the client's back-off spreads the load. Zero
	// rate admits all.
	StreamRate  rate.Limit
	StreamBurst int
	// PeerStreamRate and PeerStreamBurst are those of one peer. What they refuse spends
	// nothing of StreamRate, which all peers share, so that one that opens and closes
	// streams keeps none of the others away. Zero is no bound.
	PeerStreamRate  rate.Limit
	PeerStreamBurst int
	// MaxSessions bounds open streams. Zero is no bound.
	MaxSessions int
	// MaxPeerSessions bounds those of one peer. What it refuses spends nothing of
	// StreamRate, which all peers share. Zero is no bound.
	MaxPeerSessions int
}

// Option adjusts a Server.
type Option func(*Server)

// WithPeerID makes the server take the client's SPIFFE ID from the stream's
// context. When f returns an error the stream ends with Unauthenticated.
func WithPeerID(f func(context.Context) (string, error)) Option {
	return func(s *Server) { s.peerID = f }
}

// Observer is told what sessions do. Calls come from session goroutines, may be
// concurrent, and must not block. Embed NopObserver to implement a part.
type Observer interface {
	SessionOpened(SessionInfo)
	SessionClosed(SessionInfo, error)
	// Refused is called for a stream that was not admitted.
	Refused(reason string)
	// Sent reports one response.
	Sent(s SessionInfo, typeURL string, upserts, removed int)
	Acked(s SessionInfo, typeURL string, took time.Duration)
	Nacked(s SessionInfo, typeURL string, names []string, detail string)
	// Converged reports that a client has acknowledged everything of a change
	// (quarantined resources aside).
	Converged(SessionInfo, Convergence)
}

// Convergence is the clock of one change at one client. When changes coalesced,
// Index is the newest and the times are the oldest's, so no delay is hidden.
type Convergence struct {
	// Initial is set for the first synchronisation of a session: its Received
	// and Built tell how old the state was, not how long the client waited.
	Initial bool
	Index   uint64
	// Received and Built come from the resource set; zero when unknown.
	Received, Built time.Time
	// Seen is when the session first saw the set, FirstSent and LastSent when
	// its responses went out, Acked when the last was acknowledged.
	Seen, FirstSent, LastSent, Acked time.Time
}

// NopObserver ignores everything.
type NopObserver struct{}

func (NopObserver) SessionOpened(SessionInfo)                    {}
func (NopObserver) SessionClosed(SessionInfo, error)             {}
func (NopObserver) Refused(string)                               {}
func (NopObserver) Sent(SessionInfo, string, int, int)           {}
func (NopObserver) Acked(SessionInfo, string, time.Duration)     {}
func (NopObserver) Nacked(SessionInfo, string, []string, string) {}
func (NopObserver) Converged(SessionInfo, Convergence)           {}

// SessionInfo identifies a session.
type SessionInfo struct {
	ID     uint64
	Client Client
	Since  time.Time
}

// SessionStatus is a session as the operator sees it.
type SessionStatus struct {
	SessionInfo
	// InSync is set when the client has acknowledged everything it is to have
	// and nothing is rejected.
	InSync bool
	// Generation and Index are of the newest set the session has seen.
	Generation, Index uint64
	LastAck           time.Time
	// LastConvergence is the newest completed change; nil before the first.
	LastConvergence *Convergence
	// Types are in push order.
	Types []TypeStatus
}

// TypeStatus is one resource type of a session.
type TypeStatus struct {
	Type     string
	Wildcard bool
	// Subscribed counts the resources the client is to have, Acked those it
	// has in the current version, Nacked those it rejected.
	Subscribed, Acked, Nacked int
	// Outstanding is the number of unacknowledged responses.
	Outstanding int
	// LastError is the newest NACK of the type, kept until every resource it
	// rejected is replaced.
	LastError string
	LastAck   time.Time
	Resources []ResourceStatus
}

// ResourceState says where one resource of one session stands.
type ResourceState string

const (
	// StateAcked: the client holds the current version.
	StateAcked ResourceState = "acked"
	// StateSent: on its way.
	StateSent ResourceState = "sent"
	// StatePending: to be sent as soon as the outstanding response is answered.
	StatePending ResourceState = "pending"
	// StateHeld: waits for the clusters it names.
	StateHeld ResourceState = "held"
	// StateRetrying: part of a rejected batch, to be tried again by itself.
	StateRetrying ResourceState = "retrying"
	// StateNacked: rejected; not sent again until its content changes.
	StateNacked ResourceState = "nacked"
	// StateRemoving: gone from the view, not yet from the client.
	StateRemoving ResourceState = "removing"
	// StateAbsent: asked for, does not exist or is not for this client.
	StateAbsent ResourceState = "absent"
)

// ResourceStatus is one resource of one session.
type ResourceStatus struct {
	Name  string
	State ResourceState
	// Version is the current one, ClientVersion the one the client holds.
	Version, ClientVersion string
	// Error is the client's reason when State is StateNacked.
	Error string
}
