// Command cases runs the cases of h2spec side by side: one after the other they take as long as
// its timeouts together.
//
//	cases server [-tls] HOST:PORT   is the client of a server under test
//	cases upstream                  is a hostile server, one on a port of its own for each case
//
// It prints a line of JSON for each case that is done; the upstream prints the addresses first, and
// goes on until its standard input ends.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/summerwind/h2spec/client"
	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// result is a line of output.
type result struct {
	Case string `json:"case"`
	// Addr is where the upstream listens for the case.
	Addr string `json:"addr,omitempty"`
	// Strict is a case of what an endpoint only ought to do.
	Strict  bool   `json:"strict,omitempty"`
	Skipped bool   `json:"skipped,omitempty"`
	Error   string `json:"error,omitempty"`
}

var output = struct {
	sync.Mutex
	*json.Encoder
}{Encoder: json.NewEncoder(os.Stdout)}

func print(r result) {
	output.Lock()
	defer output.Unlock()
	_ = output.Encode(r)
}

func main() {
	timeout := flag.Duration("timeout", 2*time.Second, "how long a case waits for what is to come")
	overTLS := flag.Bool("tls", false, "connect over TLS")
	at := flag.Int("parallel", 24, "cases at a time")
	if len(os.Args) < 2 {
		fatal("cases server|upstream [options]")
	}
	_ = flag.CommandLine.Parse(os.Args[2:])
	c := &config.Config{Host: "127.0.0.1", Path: "/", Timeout: *timeout, MaxHeaderLen: 4000, TLS: *overTLS, Insecure: true, Strict: true}
	switch os.Args[1] {
	case "server":
		asClient(c, flag.Arg(0), *at)
	case "upstream":
		asServer(c)
	default:
		fatal("no such command: " + os.Args[1])
	}
}

func fatal(v any) {
	fmt.Fprintln(os.Stderr, v)
	os.Exit(1)
}

// done prints what became of a case.
func done(r result, err error) {
	if r.Skipped = err == spec.ErrSkipped; err != nil && !r.Skipped {
		r.Error = err.Error()
	}
	print(r)
}

func asClient(c *config.Config, addr string, at int) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		fatal(err)
	}
	c.Host = host
	if c.Port, err = strconv.Atoi(port); err != nil {
		fatal(err)
	}
	var wait sync.WaitGroup
	turns := make(chan struct{}, at)
	for _, s := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		ofGroup(s, func(r result, run func(*config.Config, *spec.Conn) error) {
			wait.Go(func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				own := *c
				conn, err := spec.Dial(&own)
				if err == nil {
					err = run(&own, conn)
					conn.Close()
				}
				done(r, err)
			})
		})
	}
	wait.Wait()
}

func ofGroup(g *spec.TestGroup, each func(result, func(*config.Config, *spec.Conn) error)) {
	for i, tests := range [][]*spec.TestCase{g.Tests, g.StrictTests} {
		for n, tc := range tests {
			each(result{Case: fmt.Sprintf("%s/%d %s", g.ID(), n+1+i*len(g.Tests), tc.Desc), Strict: tc.Strict}, tc.Run)
		}
	}
	for _, sub := range g.Groups {
		ofGroup(sub, each)
	}
}

func asServer(c *config.Config) {
	ofClientGroup(client.Spec(), func(name string, run func(*config.Config, *spec.Conn) error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fatal(err)
		}
		print(result{Case: name, Addr: l.Addr().String()})
		go listen(c, l, name, run)
	})
	print(result{})
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func ofClientGroup(g *spec.ClientTestGroup, each func(string, func(*config.Config, *spec.Conn) error)) {
	for n, tc := range g.Tests {
		each(fmt.Sprintf("%s/%d %s", g.ID(), n+1, tc.Desc), tc.Run)
	}
	for _, sub := range g.Groups {
		ofClientGroup(sub, each)
	}
}

// listen plays a case on the first connection that brings a request or its preface; those after
// it are for the same.
func listen(c *config.Config, l net.Listener, name string, run func(*config.Config, *spec.Conn) error) {
	for {
		base, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			own := *c
			conn, err := spec.Accept(&own, base)
			if err == nil {
				err = run(&own, conn)
				base.Close()
			}
			done(result{Case: name}, err)
		}()
	}
}
