// Package otlp sends what the sidecar tells of requests, spans and records of logs, to
// collectors of OpenTelemetry and Zipkin: what is told is encoded where it arises, waits
// in a bounded buffer, and is sent by a goroutine, through a cluster.
package otlp

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Collector is a service of a cluster.
type Collector struct {
	Cluster string
	// GRPC is OTLP over gRPC; otherwise bodies are posted to Path.
	GRPC            bool
	Authority, Path string
	Headers         []route.HeaderAdd
	Timeout         time.Duration // 5 s when 0
}

const (
	defaultTimeout = 5 * time.Second
	// DefaultInterval is how long an item waits for others to be sent with it.
	DefaultInterval = time.Second
	// DefaultSendAt is how many bytes are sent before the interval is over: there is room
	// for as many while they are on their way.
	DefaultSendAt = maxPending / 2
	// lastFlush bounds the sending of what is on its way or left at the end.
	lastFlush = 2 * time.Second
)

// Config is what an exporter sends, and when.
type Config struct {
	Collector *Collector
	// Items is what they are called in the log.
	Items string
	// Agent and ContentType are header fields of requests.
	Agent, ContentType string
	// Body makes a request's body of items one after the other.
	Body func(items []byte) []byte
	// Mute is a protocol whose answers do not tell which items were rejected.
	Mute bool
	// MaxItems is how many may wait in one shard.
	MaxItems int
	// Interval is how long the first waits for others, SendAt how many bytes do not wait.
	Interval time.Duration
	SendAt   int
	Counters
}

// Counters are what became of items: sent, dropped for want of room, not to be sent, or
// not wanted by the collector. A nil one does not count.
type Counters struct{ Sent, Dropped, Failed, Rejected *telemetry.Counter }

// Options are what Exporters work with.
type Options struct {
	Clusters *cluster.Manager
	Log      *slog.Logger
}

// Exporters owns exporters. Safe for concurrent use.
type Exporters struct {
	o       Options
	closing chan struct{}   // exporters are to send what they have, and end
	ctx     context.Context // of requests to collectors
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex
	list   []*Exporter
	closed bool
}

// NewExporters returns an owner of exporters.
func NewExporters(o Options) *Exporters {
	es := &Exporters{o: o, closing: make(chan struct{})}
	es.ctx, es.cancel = context.WithCancel(context.Background())
	return es
}

// Open returns the exporter of a key, and makes one where there is none. It must be
// released when nothing is added any more.
func (es *Exporters) Open(key any, config func() Config) (*Exporter, error) {
	es.mu.Lock()
	defer es.mu.Unlock()
	if es.closed {
		return nil, errors.New("exporters are closed")
	}
	i := slices.IndexFunc(es.list, func(e *Exporter) bool { return reflect.DeepEqual(e.key, key) })
	if i < 0 {
		i = len(es.list)
		e, err := newExporter(es, key, config())
		if err != nil {
			return nil, err
		}
		es.list = append(es.list, e)
		es.wg.Go(e.run)
	}
	es.list[i].refs++
	return es.list[i], nil
}

// Release gives an exporter back; with its last user it sends what it has, and ends.
func (e *Exporter) Release() {
	es := e.owner
	es.mu.Lock()
	defer es.mu.Unlock()
	if e.refs--; e.refs == 0 {
		es.list = slices.DeleteFunc(es.list, func(o *Exporter) bool { return o == e })
		close(e.over)
	}
}

// Close sends what is waiting, for a bounded time, and waits for every exporter. The
// cluster manager must still be open.
func (es *Exporters) Close() {
	es.mu.Lock()
	if !es.closed {
		es.closed = true
		close(es.closing)
	}
	es.mu.Unlock()
	late := time.AfterFunc(lastFlush, func() {
		defer panics.Contain(panics.Timer, nil, nil)
		es.cancel()
	})
	es.wg.Wait()
	late.Stop()
	es.cancel()
}
