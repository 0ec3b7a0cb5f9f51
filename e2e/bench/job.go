package main

import (
	"fmt"
	"slices"
	"strings"
)

// proto is what is spoken on one leg of a job.
type proto string

const (
	http1 proto = "http1"
	http2 proto = "http2"
	tcp   proto = "tcp"
)

// job is something that every contender does in the same way: the load, the hops
// between it and the origin, and what is counted.
type job struct {
	name, about string
	unit        string // what a cost is divided by
	legs        []leg  // from the load to the origin: one more than there are hops
	measured    int    // how many of the hops are measured, from the load on
	load        load
	origin      func(bodySize int) (*origin, error)
	extra       extra // configuration that is loaded and not used
	noTimeout   bool  // streams outlast every route timeout
	memory      *memoryJob
	crowd       bool // only the times of one client are of interest
	fixed       int  // number of connections, 0 when the matrix says
}

// leg is one way between two programs.
type leg struct {
	proto proto
	mtls  bool
}

// extra is configuration beside that of the job.
type extra struct{ clusters, routes int }

func plainLegs(p ...proto) []leg {
	var out []leg
	for _, p := range p {
		out = append(out, leg{proto: p})
	}
	return out
}

// twoHops is in, mTLS between the proxies, out.
func twoHops(in, between, out proto) []leg {
	return []leg{{proto: in}, {proto: between, mtls: true}, {proto: out}}
}

func jobs() []job {
	get, echo := h1Load{}, tcpLoad{}
	unary, stream := h2Load{grpc: true}, h2Load{grpc: true, stream: true}
	return []job{
		{name: "plain", about: "HTTP/1", unit: "request", legs: plainLegs(http1, http1), load: get, origin: startHTTP1},
		{name: "mtls1", about: "HTTP/1, one hop, mTLS to an HAProxy that is not measured", unit: "request", legs: twoHops(http1, http1, http1), measured: 1, load: get, origin: startHTTP1},
		{name: "mtls2", about: "HTTP/1, two hops, mTLS between", unit: "request", legs: twoHops(http1, http1, http1), load: get, origin: startHTTP1},
		{name: "mtls2-h2", about: "HTTP/1, two hops, mTLS with HTTP/2 between", unit: "request", legs: twoHops(http1, http2, http1), load: get, origin: startHTTP1},
		{name: "h2-h1", about: "HTTP/2 in, HTTP/1 out", unit: "request", legs: plainLegs(http2, http1), load: h2Load{}, origin: startHTTP1},
		{name: "grpc", about: "gRPC unary, two hops, mTLS between, HTTP/2 end to end", unit: "call", legs: twoHops(http2, http2, http2), load: unary, origin: startGRPC},
		{name: "grpc-stream", about: "gRPC messages to and fro on held streams, two hops, mTLS between", unit: "message", legs: twoHops(http2, http2, http2), load: stream, origin: startGRPC, noTimeout: true},
		{name: "tcp", about: "TCP, a message and its echo", unit: "message", legs: plainLegs(tcp, tcp), load: echo, origin: startEcho},
		{name: "tcp-mtls2", about: "TCP, a message and its echo, two hops, mTLS between", unit: "message", legs: twoHops(tcp, tcp, tcp), load: echo, origin: startEcho},
		{name: "bulk", about: "TCP, download", unit: "GB", legs: plainLegs(tcp, tcp), load: bulkLoad{}, origin: startSource, fixed: 4},
		{name: "bulk-mtls2", about: "TCP, download, two hops, mTLS between", unit: "GB", legs: twoHops(tcp, tcp, tcp), load: bulkLoad{}, origin: startSource, fixed: 4},
		{name: "connect", about: "HTTP/1, a new connection for each request", unit: "request", legs: plainLegs(http1, http1), load: fresh{get}, origin: startHTTP1},
		{name: "connect-tcp-mtls2", about: "TCP, a new connection for each message, two hops, mTLS between", unit: "connection", legs: twoHops(tcp, tcp, tcp), load: fresh{echo}, origin: startEcho},
		{name: "handshake", about: "HTTP/1 over mTLS in, a full handshake for each request", unit: "handshake", legs: []leg{{http1, true}, {http1, false}}, load: fresh{get}, origin: startHTTP1},
		{name: "loaded", about: "HTTP/1 with 1,000 clusters and 10,000 routes loaded", unit: "request", legs: plainLegs(http1, http1), load: get, origin: startHTTP1, extra: extra{1000, 10000}},
		{name: "beside-downloads", about: "HTTP/1, one client beside others that download without a pause", unit: "request", legs: plainLegs(http1, http1), load: crowdLoad{}, origin: startCrowdHTTP1, crowd: true, fixed: 32},

		{name: "idle-100", about: "memory, idle with 100 clusters", legs: plainLegs(http1, http1), origin: startHTTP1, extra: extra{100, 100}, memory: &memoryJob{}},
		{name: "idle-10000", about: "memory, idle with 10,000 clusters and routes", legs: plainLegs(http1, http1), origin: startHTTP1, extra: extra{10000, 10000}, memory: &memoryJob{}},
		{name: "held", about: "memory of an idle HTTP/1 connection after a 1 KB answer", legs: plainLegs(http1, http1), load: get, origin: startHTTP1, memory: &memoryJob{conns: 1000}},
		{name: "held-mtls", about: "memory of an idle mTLS HTTP/1 connection after a 1 KB answer", legs: []leg{{http1, true}, {http1, false}}, load: get, origin: startHTTP1, memory: &memoryJob{conns: 1000}},
		{name: "held-tcp-mtls2", about: "memory of an idle TCP connection after a 1 KB message, two hops, mTLS between", legs: twoHops(tcp, tcp, tcp), load: echo, origin: startEcho, memory: &memoryJob{conns: 1000}},
	}
}

func jobNamed(name string) (job, error) {
	all := jobs()
	i := slices.IndexFunc(all, func(j job) bool { return j.name == name })
	if i < 0 {
		var names []string
		for _, j := range all {
			names = append(names, j.name)
		}
		return job{}, fmt.Errorf("-jobs: %q is not known; known are %s", name, strings.Join(names, ", "))
	}
	return all[i], nil
}

// setting is one job at one size.
type setting struct {
	job   job
	conns int
	body  int
	bare  bool // features off
}

// settings are those of the given jobs; a job that has no size of its own is
// measured once for each combination.
func settings(names []string, conns, bodies []int, features []bool) ([]setting, error) {
	var out []setting
	for _, name := range names {
		j, err := jobNamed(name)
		if err != nil {
			return nil, err
		}
		if j.memory != nil {
			out = append(out, setting{job: j, conns: j.memory.conns, body: 1024})
			continue
		}
		c := conns
		if j.fixed > 0 {
			c = []int{j.fixed}
		}
		for _, n := range c {
			for _, body := range bodies {
				for _, on := range features {
					out = append(out, setting{job: j, conns: n, body: body, bare: !on})
				}
				if j.unit == "GB" {
					break // a stream has no body
				}
			}
		}
	}
	return out, nil
}

// The jobs that the goals are about, in some minutes.
var standard = []struct {
	jobs  string
	conns []int
}{
	{"plain mtls2 mtls2-h2 grpc grpc-stream", []int{4, 64}},
	{"mtls1 tcp-mtls2 connect-tcp-mtls2 bulk-mtls2 idle-100 idle-10000 held held-mtls held-tcp-mtls2", []int{64}},
}

func standardSettings() (out []setting, err error) {
	for _, s := range standard {
		some, err := settings(strings.Fields(s.jobs), s.conns, []int{1024}, []bool{true})
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// fullSettings is every job: all sizes of connections with 1 KB, and the other
// bodies and the features off at the sizes of the goals.
func fullSettings() (out []setting, err error) {
	var names []string
	for _, j := range jobs() {
		names = append(names, j.name)
	}
	all, err := settings(names, []int{1, 4, 64, 1000}, []int{1024}, []bool{true})
	if err != nil {
		return nil, err
	}
	bodies, err := settings([]string{"plain", "mtls2", "mtls2-h2", "h2-h1", "grpc", "grpc-stream", "tcp", "tcp-mtls2"}, []int{64}, []int{0, 16 << 10}, []bool{true})
	if err != nil {
		return nil, err
	}
	bare, err := settings([]string{"plain", "mtls2", "mtls2-h2", "grpc", "tcp-mtls2"}, []int{4, 64}, []int{1024}, []bool{false})
	return slices.Concat(all, bodies, bare), err
}
