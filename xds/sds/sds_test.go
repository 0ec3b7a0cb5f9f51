package sds

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/xds/sdstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// board notes what a Handler is told.
type board struct {
	mu     sync.Mutex
	got    []string
	ended  int
	refuse string
}

func (b *board) Secret(body []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if string(body) == b.refuse {
		return errors.New("no use")
	}
	b.got = append(b.got, string(body))
	return nil
}

func (b *board) Ended(error, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended++
}

func (b *board) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.got, " ")
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("never: " + what)
		}
	}
}

func follow(t *testing.T, socket string, b *board) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s := &Service{Socket: socket, Node: &corev3.Node{Id: "n1"}}
	go func() { defer close(done); s.Follow(ctx, "web", b) }()
	t.Cleanup(func() { cancel(); <-done })
}

func TestFollow(t *testing.T) {
	service, b := sdstest.New(t), &board{refuse: "bad"}
	follow(t, service.Socket, b)
	service.Put("other", []byte("not asked for"))
	service.Put("web", []byte("one"))
	waitFor(t, "the secret", func() bool { return b.text() == "one" })
	service.Put("web", []byte("bad"))
	waitFor(t, "the refusal", func() bool { return len(service.Refusals()) == 1 })
	service.Put("web", []byte("two"))
	waitFor(t, "the next", func() bool { return b.text() == "one two" })
	waitFor(t, "its acceptance", func() bool { return len(service.Requests()) == 4 })
	r := service.Requests()
	if r[0].GetNode().GetId() != "n1" || r[0].GetResourceNames()[0] != "web" {
		t.Errorf("the first request is %v", r[0])
	}
	// A refusal names the response by its nonce, and the version that stays.
	if r[2].GetResponseNonce() == r[1].GetResponseNonce() || r[2].GetVersionInfo() != r[1].GetVersionInfo() || r[2].GetErrorDetail().GetMessage() != "no use" {
		t.Errorf("accepted with %v, refused with %v", r[1], r[2])
	}
	if r[3].GetErrorDetail() != nil || r[3].GetVersionInfo() == r[1].GetVersionInfo() {
		t.Errorf("then accepted with %v", r[3])
	}
}

func TestServiceComesBack(t *testing.T) {
	service, b := sdstest.New(t), &board{}
	service.Put("web", []byte("one"))
	follow(t, service.Socket, b)
	waitFor(t, "the secret", func() bool { return b.text() == "one" })
	service.Stop()
	waitFor(t, "the end", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.ended > 0 })
	service.Put("web", []byte("two"))
	service.Start(t)
	waitFor(t, "the secret again", func() bool { return b.text() == "one two" })
}
