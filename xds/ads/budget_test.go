package ads

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// byName has each stream be of the peer that its metadata names.
func byName() Option {
	return WithPeerID(func(ctx context.Context) (string, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return md.Get("peer")[0], nil
	})
}

// asker asks for endpoints of ever more clusters, one after the other.
type asker struct {
	t     *testing.T
	s     deltaStream
	nonce string
	asked int
}

func ask(t *testing.T, c discoveryv3.AggregatedDiscoveryServiceClient, peer string, names int) *asker {
	t.Helper()
	s, err := c.DeltaAggregatedResources(metadata.AppendToOutgoingContext(t.Context(), "peer", peer))
	if err != nil {
		t.Fatal(err)
	}
	a := &asker{t: t, s: s}
	a.more(names)
	return a
}

func (a *asker) more(names int) {
	a.t.Helper()
	r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResponseNonce: a.nonce}
	if a.nonce == "" {
		r.Node = &corev3.Node{Id: "n"}
	}
	for range names {
		a.asked++
		r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, fmt.Sprint("c", a.asked))
	}
	if err := a.s.Send(r); err != nil {
		a.t.Fatal(err)
	}
	a.nonce = recv(a.t, a.s).Nonce
}

// TestRequestsOfOnePeerAreBounded: what its requests cost is spread over time, whichever of its
// streams they come on, and keeps no other peer waiting.
func TestRequestsOfOnePeerAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := New(Config{Provider: newBoard(set())}, byName())
		srv.work = newBudgets(10_000, 20_000)
		c := serve(t, srv)
		greedy := []*asker{ask(t, c, "greedy", 1000), ask(t, c, "greedy", 1000)}
		other := ask(t, c, "other", 10)
		began := time.Now()
		for range 50 {
			for _, a := range greedy {
				a.more(1)
			}
		}
		// A hundred requests look at a thousand names each.
		if took := time.Since(began); took < 7*time.Second || took > 15*time.Second {
			t.Errorf("100 requests in %s", took)
		}
		began = time.Now()
		for range 20 {
			other.more(1)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("another peer waits %s", took)
		}
		// An answer alone derives nothing anew.
		time.Sleep(time.Minute)
		began = time.Now()
		for range 100 {
			if err := greedy[0].s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResponseNonce: "1"}); err != nil {
				t.Fatal(err)
			}
		}
		greedy[0].more(1)
		if took := time.Since(began); took > time.Second {
			t.Errorf("100 answers in %s", took)
		}
	})
}

// TestNewStreamsOfOnePeer: who opens streams and closes them takes none from the others.
func TestNewStreamsOfOnePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := serve(t, New(Config{Provider: newBoard(set()), StreamRate: 10, StreamBurst: 20, PeerStreamRate: 1, PeerStreamBurst: 5}, byName()))
		opens := func(peer string) codes.Code {
			s, err := c.DeltaAggregatedResources(metadata.AppendToOutgoingContext(t.Context(), "peer", peer))
			if err != nil {
				t.Fatal(err)
			}
			_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: cds})
			if _, err = s.Recv(); err == nil {
				if err := s.CloseSend(); err != nil {
					t.Fatal(err)
				}
				_, _ = s.Recv()
			}
			return status.Code(err)
		}
		admitted := 0
		for range 100 {
			if opens("greedy") == codes.OK {
				admitted++
			}
		}
		if admitted != 5 {
			t.Errorf("%d of 100 streams of one peer are admitted at once", admitted)
		}
		if got := opens("other"); got != codes.OK {
			t.Errorf("another peer: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := opens("greedy"); got != codes.OK {
			t.Errorf("two seconds later: %s", got)
		}
	})
}

// TestBudgetsAreForgotten: of a peer that is gone nothing is left.
func TestBudgetsAreForgotten(t *testing.T) {
	b, now := newBudgets(1, 2), time.Now()
	for i := range 3 * maxBudgets {
		b.allow(fmt.Sprint(i), now.Add(time.Duration(i)*time.Second))
	}
	if n := len(b.of); n > maxBudgets {
		t.Errorf("%d budgets", n)
	}
}

// TestRejectionsInTheLog: a client that rejects without end fills no log, neither with lines nor
// with names.
func TestRejectionsInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		srv := New(Config{Provider: newBoard(set()), Log: slog.New(slog.NewTextHandler(&log, nil))}, byName())
		srv.said = newBudgets(1, 5)
		a := ask(t, serve(t, srv), "greedy", 100)
		for range 50 {
			if err := a.s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResponseNonce: a.nonce, ErrorDetail: &spb.Status{Code: 3, Message: "no"}}); err != nil {
				t.Fatal(err)
			}
			a.nonce = recv(t, a.s).Nonce // each name alone
		}
		synctest.Wait()
		text := log.String()
		if n := strings.Count(text, "configuration rejected"); n != 5 {
			t.Errorf("%d lines of 50 rejections", n)
		}
		if !strings.Contains(text, "and 80 more") {
			t.Errorf("the names of the first rejection: %.500s", text)
		}
	})
}
