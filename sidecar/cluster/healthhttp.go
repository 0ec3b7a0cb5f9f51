package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// maxCheckBody is how much of a response's body is kept. Of HTTP checks the rest is read as well,
// as long as the check may last: a long answer is one that passes, as in Envoy.
const maxCheckBody = 1 << 20

// anyLength is the limit of what is read of a body where there is none.
const anyLength = math.MaxInt

// userAgent is what health checks say they are.
const userAgent = "Hauberk/HC"

// request fills in the request of an HTTP health check.
func (k *checker) request(req *message.Request, v message.Version) {
	c := k.cfg.HTTP
	req.Reset()
	req.Method, req.Path = c.Method, c.Path
	if req.Method == "" {
		req.Method = "GET"
	}
	req.Authority, req.Scheme = k.hostname(c.Host), k.scheme()
	req.ContentLength = int64(len(c.Body))
	req.Fields.Add("user-agent", userAgent)
	k.addHeaders(&req.Fields, v)
}

// keep is how much of the body is looked at.
func (c *HTTPCheck) keep() int {
	if c.BodyLimit > 0 {
		return min(c.BodyLimit, maxCheckBody)
	}
	return maxCheckBody
}

// judge decides about a response whose head and body have come.
func (c *HTTPCheck) judge(resp *message.Response, body []byte) verdict {
	_, exclude := resp.Header("x-envoy-immediate-health-check-fail")
	if len(c.Receive) > 0 && !occur(body, c.Receive) {
		return verdict{err: fmt.Errorf("status %d: the body lacks what is expected", resp.Status), exclude: exclude, status: resp.Status}
	}
	expected := c.Expected
	if len(expected) == 0 {
		expected = []StatusRange{{200, 201}}
	}
	in := func(ranges []StatusRange) bool {
		return slices.ContainsFunc(ranges, func(r StatusRange) bool { return resp.Status >= r.From && resp.Status < r.To })
	}
	if !in(expected) {
		return verdict{err: fmt.Errorf("status %d", resp.Status), retriable: in(c.Retriable), exclude: exclude, status: resp.Status}
	}
	if c.ServiceName != nil {
		if name, _ := resp.Header("x-envoy-upstream-healthchecked-cluster"); !c.ServiceName.Matches(name) {
			return verdict{err: fmt.Errorf("the host says it is service %q", name), status: resp.Status}
		}
	}
	_, degraded := resp.Header("x-envoy-degraded")
	return verdict{degraded: degraded}
}

// occur tells whether all parts are in b, in order and without overlap.
func occur(b []byte, parts [][]byte) bool {
	for _, p := range parts {
		i := bytes.Index(b, p)
		if i < 0 {
			return false
		}
		b = b[i+len(p):]
	}
	return true
}

// checkHTTP asks over HTTP/1.1; reusable says that the connection may be asked
// again.
func (k *checker) checkHTTP() (v verdict, reusable bool) {
	c := k.cfg.HTTP
	var req message.Request
	k.request(&req, message.HTTP11)
	o := http1.RequestOptions{Framing: http1.NoBody, Close: k.cfg.NoReuse}
	if len(c.Body) > 0 {
		o.Framing = http1.Length
	}
	out, err := http1.AppendRequest(nil, &req, o)
	if err != nil {
		return failed(fmt.Errorf("host %q, path %q: %w; set http_health_check.host", req.Authority, req.Path, err)), false
	}
	if _, err = k.conn.Write(append(out, c.Body...)); err != nil {
		return unanswered(err), false
	}
	r := responseReader{conn: k.conn, method: req.Method, limit: anyLength, keep: c.keep()}
	if err := r.read(); err != nil {
		return unanswered(err), false
	}
	return c.judge(&r.resp, r.body), !r.resp.Close
}

// responseReader reads one HTTP/1 response to its end.
type responseReader struct {
	conn   io.Reader
	method string
	// keep is how much of the body is kept and limit how much is read.
	keep, limit int

	resp message.Response
	body []byte
}

var errLongBody = errors.New("the response is longer than is read of one")

func (r *responseReader) read() error {
	var parser http1.ResponseParser
	parser.Configure(http1.Limits{})
	buf, framing, err := r.head(&parser)
	if err != nil {
		return err
	}
	if framing == http1.NoBody {
		if len(buf) > 0 {
			r.resp.Close = true // bytes that nobody asked for
		}
		return nil
	}
	var dec http1.BodyDecoder
	var trailers message.Fields
	dec.Start(framing, r.resp.ContentLength, http1.Limits{}.WithDefaults())
	for total := 0; ; {
		data, n, done, err := dec.Decode(buf, &trailers)
		if err != nil {
			return err
		}
		if total += len(data); total > r.limit {
			return errLongBody
		}
		r.body = append(r.body, data[:min(len(data), r.keep-len(r.body))]...)
		buf = buf[n:]
		if done {
			r.resp.Close = r.resp.Close || len(buf) > 0
			return nil
		}
		if len(data) > 0 || n > 0 {
			continue
		}
		if buf, err = r.more(buf); err != nil {
			if errors.Is(err, io.EOF) && framing == http1.UntilClose {
				r.resp.Close = true
				return nil
			}
			return err
		}
	}
}

// head reads up to the final response's head; rest is what came after it.
func (r *responseReader) head(p *http1.ResponseParser) (rest []byte, framing http1.Framing, err error) {
	var buf []byte
	for interim := 0; interim < 16; {
		n, framing, err := p.Parse(buf, r.method, &r.resp)
		switch {
		case err != nil:
			return nil, 0, err
		case n == 0:
			if buf, err = r.more(buf); err != nil {
				return nil, 0, err
			}
		case r.resp.Status >= 200:
			return buf[n:], framing, nil
		default:
			buf = buf[n:]
			interim++
			r.resp.Reset()
			p.Reset()
		}
	}
	return nil, 0, errors.New("too many interim responses")
}

// more appends what comes next.
func (r *responseReader) more(buf []byte) ([]byte, error) {
	buf = slices.Grow(buf, 4<<10)
	n, err := r.conn.Read(buf[len(buf):cap(buf)])
	if n > 0 {
		return buf[:len(buf)+n], nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return buf, err
}

// checkTCP connects, or waits for what the host is to answer.
func (k *checker) checkTCP() (v verdict, reusable bool) {
	c := k.cfg.TCP
	said := c.Send
	if c.Announce != 0 && !k.announced {
		k.announced = true
		said = append(c.announcement(k.conn.Info()), said...)
	}
	if len(said) > 0 {
		if _, err := k.conn.Write(said); err != nil {
			return unanswered(err), false
		}
	}
	if len(c.Receive) == 0 {
		return verdict{}, false // that it connected says all
	}
	r := responseReader{conn: k.conn}
	var buf []byte
	for !occur(buf, c.Receive) {
		if len(buf) > maxCheckBody {
			return failed(errLongBody), false
		}
		var err error
		if buf, err = r.more(buf); err != nil {
			return unanswered(err), false
		}
	}
	return verdict{}, true
}

// announcement is the header of the PROXY protocol with which a check's connection begins.
func (c *TCPCheck) announcement(i *stream.Info) []byte {
	if c.Announce == 1 {
		return c.Announce.header(addrPortOf(i.Local), addrPortOf(i.Remote), "")
	}
	return c.Announce.header(netip.AddrPort{}, netip.AddrPort{}, "")
}
