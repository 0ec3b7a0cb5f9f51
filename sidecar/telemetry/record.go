package telemetry

import (
	"cmp"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/internal/peercert"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Direction of the traffic, seen from the workload.
type Direction uint8

// The directions.
const (
	Unspecified Direction = iota
	Inbound
	Outbound
)

func (d Direction) String() string {
	switch d {
	case Inbound:
		return "inbound"
	case Outbound:
		return "outbound"
	}
	return "unspecified"
}

// Headers gives access to the headers of one message; *message.Request and
// *message.Response implement it. lower is a lower-case name, pseudo-headers
// (":method", ":path", ":authority", ":scheme", ":status") included. Several fields
// of one name are joined with commas. The string is read at once and never kept.
type Headers interface {
	Header(lower string) (value string, ok bool)
	// HeaderFrom gives the values of a field one by one, from position 0 on.
	HeaderFrom(name message.Name, from int) (value string, next int, ok bool)
}

// Record is what is known of one finished request, or of one finished connection
// that carried no requests. Access logs are written from it. A Record belongs to
// the goroutine that got it; a sink keeps nothing of it after Log returns.
type Record struct {
	Start    time.Time
	Duration time.Duration
	// UpstreamDuration is from the first byte sent upstream to the first byte of
	// the answer; negative when there was no answer.
	UpstreamDuration time.Duration

	// The listener's facts.
	Direction             Direction
	Listener, Chain       string
	Workload, Service     string
	ConnectionID          uint64
	ConnectionTermination string // why the sidecar ended the connection
	LocalClose            string // the same in Envoy's words for it, "" where the peer did
	UpstreamLocalClose    string // the same of the upstream's
	// DownstreamClose and UpstreamClose tell of resets of connections.
	DownstreamClose, UpstreamClose CloseType
	TransportFailure               string // why the downstream handshake failed
	// UpstreamTransportFailure is why no connection to the upstream could be made, in
	// Envoy's words; UpstreamFailure, in ours, also why the last attempt failed otherwise.
	UpstreamTransportFailure, UpstreamFailure string

	// The downstream connection. PeerID and OwnID were proven by the handshake.
	DownstreamRemote, DownstreamLocal net.Addr
	// DownstreamDirect differs from DownstreamRemote when a trusted hop named the client.
	DownstreamDirect net.Addr
	// Destination is where the client wanted to go; invalid where that is DownstreamLocal.
	Destination   netip.AddrPort
	PeerID, OwnID string
	PeerCertHash  string
	Peer          *peercert.Chain
	// Own is Info's, and not looked into for who shows nothing of it.
	Own *handshake.Own
	// Noted and UpstreamNoted are Info's.
	Noted, UpstreamNoted              *stream.Noted
	TLSVersion, CipherSuite, TLSGroup uint16
	SNI                               string

	// The request. Protocol is empty for a plain connection.
	Protocol                    string
	RequestHeaders              Headers
	ResponseHeaders             Headers
	ResponseTrailers            Headers // nil when there were none, or nobody wants them
	Code                        int     // 0 when no response began
	CodeDetails                 string
	Flags                       Flags
	BytesReceived, BytesSent    int64 // bodies, or all bytes of a plain connection
	VirtualHost, Route, Cluster string
	ClusterStat                 string // what statistics call the cluster, "" for its name
	// GRPCStatus is that of the response's trailers, HealthCheck what the health check
	// filter said of the request, LocalReply the text of an answer of our own.
	GRPCStatus  string
	HealthCheck bool
	LocalReply  string
	// Type is the occasion of the record.
	Type LogType

	// The upstream that answered, or the last one that was tried.
	UpstreamHost, UpstreamLocal net.Addr
	UpstreamPeerID              string
	UpstreamOwnID               string
	UpstreamHostname            string // of its endpoint
	UpstreamProtocol            string
	UpstreamPeer                *peercert.Chain
	UpstreamOwn                 *handshake.Own
	// Of the upstream connection's TLS.
	UpstreamTLSVersion, UpstreamCipher, UpstreamGroup uint16
	upstreamTLS                                       bool // there is something in what UpstreamTLS notes of TLS
	UpstreamSNI                                       string
	// Attempted are the hosts that were tried, nil for none.
	Attempted Attempts
	// Attempts is how many upstream attempts were made; retries are one less. Resent says
	// that one more was sent, on a connection that its peer was closing.
	Attempts int
	Resent   bool

	// Authorization. Rule is the policy that decided, "" when nothing was asked.
	Denied bool
	Rule   string
	// ShadowDenied and ShadowRule tell what shadow rules would have decided.
	ShadowDenied bool
	ShadowRule   string
	// Metadata is nil where there is none, or nobody wants it.
	Metadata *Metadata
	// Configured and Sizes are nil, or empty, where nobody shows them.
	Configured Configured
	Sizes      Sizes

	// Moments are those of the exchange or connection; RequestBegan is that of Start.
	Moments Moments
	// TraceForced: the request is traced because x-envoy-force-trace says so, here or in a
	// hop before.
	TraceForced bool
	// TraceID and SpanID are hexadecimal, empty without tracing.
	TraceID, SpanID []byte

	streamID [36]byte
}

var records = sync.Pool{New: func() any { return new(Record) }}

// NewRecord takes an empty record from the pool.
func NewRecord() *Record {
	r := records.Get().(*Record)
	r.UpstreamDuration = -1
	return r
}

// Release empties the record and gives it back.
func (r *Record) Release() {
	*r = Record{}
	records.Put(r)
}

// SourceID is the SPIFFE ID of who asked: the peer inbound, the workload outbound.
func (r *Record) SourceID() string {
	if r.Direction == Outbound {
		if r.UpstreamOwnID != "" {
			return r.UpstreamOwnID
		}
		return r.Workload
	}
	return r.PeerID
}

// DestinationID is the SPIFFE ID of who was asked: the workload inbound, the
// verified upstream outbound.
func (r *Record) DestinationID() string {
	if r.Direction == Outbound {
		return r.UpstreamPeerID
	}
	if r.OwnID != "" {
		return r.OwnID
	}
	return r.Workload
}

// Sent is the number of attempts, whoever asked for them.
func (r *Record) Sent() int {
	if r.Resent {
		return r.Attempts + 1
	}
	return r.Attempts
}

// Retries is the number of attempts after the first.
func (r *Record) Retries() int {
	if r.Attempts > 1 {
		return r.Attempts - 1
	}
	return 0
}

// UpstreamTLS notes what is known of an upstream connection.
func (r *Record) UpstreamTLS(i *stream.Info) {
	r.UpstreamNoted = i.Noted
	if !i.TLS && !r.upstreamTLS {
		return // there is nothing to tell, nor to forget of a connection before it
	}
	r.upstreamTLS = i.TLS
	r.UpstreamPeerID, r.UpstreamOwnID, r.UpstreamPeer = i.PeerID, i.OwnID, i.Peer
	r.UpstreamOwn = i.Own()
	r.UpstreamTLSVersion, r.UpstreamCipher, r.UpstreamGroup, r.UpstreamSNI = i.TLSVersion, i.CipherSuite, i.Group, i.SNI
}

// Sink takes finished records. *Log implements it; a nil *Log takes nothing.
type Sink interface {
	Log(*Record)
}

// ObservedCluster is what statistics call the cluster.
func (r *Record) ObservedCluster() string { return cmp.Or(r.ClusterStat, r.Cluster) }

// CloseType is how a connection ended, or, as in Envoy, Normal while it lasts.
type CloseType uint8

// The types.
const (
	CloseUnknown CloseType = iota // there is no connection
	CloseNormal
	CloseLocalReset
	CloseRemoteReset
)

func (c CloseType) String() string {
	switch c {
	case CloseLocalReset:
		return "LocalReset"
	case CloseRemoteReset:
		return "RemoteReset"
	}
	return "Normal"
}
