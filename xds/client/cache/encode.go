package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// preamble is the plaintext's first line; one delta response per type follows,
// so that an authentic file is read with the same care as the wire.
type preamble struct {
	Sequence uint64    `json:"sequence"`
	Saved    time.Time `json:"saved"`
	Server   string    `json:"server"`
	Types    int       `json:"types"`
}

func encode(st *State) ([]byte, error) {
	byType := map[string]*discoveryv3.DeltaDiscoveryResponse{}
	var urls []string
	for _, r := range st.Resources {
		m := byType[r.Type]
		if m == nil {
			m = &discoveryv3.DeltaDiscoveryResponse{TypeUrl: r.Type}
			byType[r.Type] = m
			urls = append(urls, r.Type)
		}
		m.Resources = append(m.Resources, &discoveryv3.Resource{Name: r.Name, Version: r.Version, Resource: r.Body})
	}
	slices.SortStableFunc(urls, func(a, b string) int { return rank(a) - rank(b) })
	var b bytes.Buffer
	line, err := json.Marshal(preamble{Sequence: st.Sequence, Saved: st.Saved.UTC(), Server: st.Server, Types: len(urls)})
	if err != nil {
		return nil, err
	}
	b.Write(append(line, '\n'))
	for _, url := range urls {
		m := byType[url]
		slices.SortFunc(m.Resources, func(a, b *discoveryv3.Resource) int { return strings.Compare(a.Name, b.Name) })
		if _, err := protodelim.MarshalTo(&b, m); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func rank(url string) int {
	if i := slices.Index(resource.PushOrder, url); i >= 0 {
		return i
	}
	return len(resource.PushOrder)
}

func decode(plain []byte) (*State, error) {
	line, rest, ok := bytes.Cut(plain, []byte{'\n'})
	if !ok {
		return nil, errors.New("no preamble")
	}
	var p preamble
	if err := json.Unmarshal(line, &p); err != nil {
		return nil, fmt.Errorf("preamble: %w", err)
	}
	st := &State{Sequence: p.Sequence, Saved: p.Saved, Server: p.Server}
	in := bytes.NewReader(rest)
	opts := protodelim.UnmarshalOptions{MaxSize: maxSize}
	for n := 0; ; n++ {
		m := &discoveryv3.DeltaDiscoveryResponse{}
		err := opts.UnmarshalFrom(in, m)
		if errors.Is(err, io.EOF) && n == p.Types {
			return st, nil
		}
		if err != nil {
			return nil, fmt.Errorf("type %d of %d: %w", n+1, p.Types, err)
		}
		if n == p.Types {
			return nil, fmt.Errorf("more than the %d types announced", p.Types)
		}
		if err := st.add(m); err != nil {
			return nil, err
		}
	}
}

func (st *State) add(m *discoveryv3.DeltaDiscoveryResponse) error {
	seen := map[string]struct{}{}
	for _, r := range m.GetResources() {
		switch _, dup := seen[r.GetName()]; {
		case r.GetName() == "" || r.GetVersion() == "":
			return fmt.Errorf("a resource of type %s has no name or no version", m.GetTypeUrl())
		case dup:
			return fmt.Errorf("resource %q of type %s appears twice", r.GetName(), m.GetTypeUrl())
		case r.GetResource().GetTypeUrl() != m.GetTypeUrl():
			return fmt.Errorf("resource %q of type %s has a body of type %q", r.GetName(), m.GetTypeUrl(), r.GetResource().GetTypeUrl())
		}
		seen[r.GetName()] = struct{}{}
		st.Resources = append(st.Resources, resource.Received(r.GetName(), r.GetVersion(), r.GetResource()))
	}
	return nil
}
