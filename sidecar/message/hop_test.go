package message

import "testing"

// TestHops: rules, routes and logs see what of one connection goes on in other words.
func TestHops(t *testing.T) {
	for _, c := range []struct {
		name, want string
		r          Request
	}{
		{"te", "trailers", Request{AcceptTrailers: true}},
		{"upgrade", "WebSocket", Request{Upgrade: "WebSocket"}},
		{"connection", "upgrade", Request{Upgrade: "WebSocket"}},
		{"te", "", Request{Upgrade: "WebSocket"}},
		{"upgrade", "", Request{AcceptTrailers: true}},
		{"connection", "", Request{AcceptTrailers: true}},
		{"expect", "", Request{AcceptTrailers: true, Upgrade: "WebSocket"}},
		{"expect", "100-continue", Request{ExpectContinue: true}},
		{"te", "", Request{ExpectContinue: true}},
	} {
		joined, ok := c.r.Header(c.name)
		first, next, found := c.r.HeaderFrom(NameOf(c.name), 0)
		value, there := c.r.HeaderValue(c.name, 0)
		if has := c.want != ""; joined != c.want || first != c.want || value != c.want || ok != has || found != has || there != has {
			t.Errorf("%s: %q %v, %q %v, %q %v, want %q", c.name, joined, ok, first, found, value, there, c.want)
		}
		if _, _, more := c.r.HeaderFrom(NameOf(c.name), next); more && c.want != "" {
			t.Errorf("%s: there twice", c.name)
		}
		if _, second := c.r.HeaderValue(c.name, 1); second {
			t.Errorf("%s: has a second value", c.name)
		}
		c.r.Fields.Add(c.name, "own")
		if v, _ := c.r.Header(c.name); v != "own" {
			t.Errorf("%s: %q, but a filter has set it", c.name, v)
		}
	}
}

// TestHopsAreCountedOnce: also where a filter has set them.
func TestHopsAreCountedOnce(t *testing.T) {
	r := Request{ExpectContinue: true}
	if n, want := r.Bytes(), len("expect"+"100-continue"); n != want {
		t.Errorf("%d bytes of an expectation, want %d", n, want)
	}
	r = Request{AcceptTrailers: true, Upgrade: "websocket"}
	if n, want := r.Bytes(), len("te"+"trailers"+"upgrade"+"websocket"+"connection"+"upgrade"); n != want {
		t.Errorf("%d bytes, want %d", n, want)
	}
	for _, name := range []string{"te", "upgrade", "connection"} {
		r.Fields.Add(name, "own")
	}
	if n, want := r.Bytes(), len("te"+"upgrade"+"connection"+"ownownown"); n != want {
		t.Errorf("%d bytes where a filter has set them, want %d", n, want)
	}
}
