package cluster

import (
	"net"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestCheckOperators: what a check's headers say is of the host.
func TestCheckOperators(t *testing.T) {
	h := &Host{cluster: &Cluster{name: "c"}}
	h.target.Store(&target{"tcp", "10.0.0.1:80", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}})
	h.ep.Store(&Endpoint{Hostname: "one", Metadata: map[string]map[string]any{"envoy.lb": {"name": "m"}}})
	k := &checker{h: h, cfg: &HealthCheck{HTTP: &HTTPCheck{Remove: []string{"user-agent"}, Headers: []route.HeaderAdd{
		{Name: "x-host", Value: "%UPSTREAM_HOST% %UPSTREAM_HOST_NAME% %UPSTREAM_METADATA(envoy.lb:name)% %PROTOCOL%"},
		{Name: "x-nobody", Value: "%REQ(x-host)%%UPSTREAM_REMOTE_ADDRESS%"},
	}}}}
	var err error
	if k.headers, err = k.cfg.headers(); err != nil {
		t.Fatal(err)
	}
	var f message.Fields
	f.Add("user-agent", "x")
	k.addHeaders(&f, message.HTTP2)
	if got, _ := f.Get("x-host"); got != "10.0.0.1:80 one m HTTP/2" || f.Len() != 1 {
		t.Errorf("%q, %d fields", got, f.Len())
	}
}

func TestCheckRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		s.say("10.0.0.9:81", status(200))
		s.say("10.0.0.2:80", status(200))
		a := hosts("c", "10.0.0.1", "10.0.0.2", "10.0.0.3")
		a.Localities[0].Endpoints[0].Check = &EndpointCheck{Port: 81, Address: "10.0.0.9", Hostname: "one"}
		a.Localities[2].Endpoints[0].Check = &EndpointCheck{Disabled: true}
		check := every(&HTTPCheck{
			Host: "api", Path: "/p", Method: "POST", Body: []byte("hi"), Remove: []string{"user-agent"},
			Headers: []route.HeaderAdd{{Name: "X-A", Value: "1", Action: route.OverwriteIfExistsOrAdd}, {Name: "X-A", Value: "2"}},
		})
		check.NoReuse = true
		c := used(t, m, &Config{Name: "c", HealthCheck: check, Endpoints: a})
		wait(11 * time.Second)
		if got := s.heads["10.0.0.9:81"]; got != "POST /p HTTP/1.1\r\nhione  1" {
			t.Errorf("asked %q", got)
		}
		if got := s.heads["10.0.0.2:80"]; got != "POST /p HTTP/1.1\r\nhiapi  1" {
			t.Errorf("asked %q", got)
		}
		if s.dials["10.0.0.1:80"] != 0 || s.dials["10.0.0.3:80"] != 0 || s.dials["10.0.0.9:81"] != 3 {
			t.Errorf("connections %v", s.dials)
		}
		if st := c.Stats()[2]; st.Check != "" || st.Health != Healthy {
			t.Errorf("the host that is not checked: %+v", st)
		}
		if st, _ := c.hosts()[2].state(); st != hostUp {
			t.Error("a host that is not checked is not healthy")
		}
	})
}
