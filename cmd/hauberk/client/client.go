// Package client talks to the control plane's operator API, over its Unix
// socket or, with an operator's SVID, over TLS.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/internal/socketdir"
)

// AddressEnv names the control plane to ask: "unix:///path" or "https://host:port".
const AddressEnv = "HAUBERK_ADDR"

// DefaultAddress is the socket of a control plane run with its defaults.
func DefaultAddress() string {
	if a := os.Getenv(AddressEnv); a != "" {
		return a
	}
	return "unix://" + filepath.Join(RuntimeDir(), "controlplane.sock")
}

// RuntimeDir is where this user's control plane puts its socket.
func RuntimeDir() string {
	if os.Geteuid() == 0 {
		return "/run/hauberk"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "hauberk")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("hauberk-%d", os.Geteuid()))
}

// Client calls one control plane.
type Client struct {
	base string
	http *http.Client
	addr string
}

// ErrUnreachable is returned when the control plane does not answer at all.
var ErrUnreachable = errors.New("control plane unreachable")

// New returns a client for "unix:///path" or "https://host:port"; tlsConfig is
// used for the latter.
func New(address string, tlsConfig *tls.Config) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("control plane address %q: %w", address, err)
	}
	tr := &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}
	c := &Client{addr: address, http: &http.Client{Transport: tr, Timeout: 30 * time.Second}}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || u.Path == "" {
			return nil, fmt.Errorf("control plane address %q: want unix:///absolute/path", address)
		}
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialSocket(ctx, u.Path)
		}
		c.base = "http://localhost"
	case "https":
		if tlsConfig == nil {
			return nil, fmt.Errorf("control plane address %q: needs an operator's SVID (--svid-dir)", address)
		}
		c.base = "https://" + u.Host
	default:
		return nil, fmt.Errorf("control plane address %q: want unix:///path or https://host:port", address)
	}
	return c, nil
}

// Get decodes the answer of a read into out.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodGet, path, nil, out)
}

// Post sends in and decodes the answer into out; either may be nil.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	return c.do(ctx, http.MethodPost, path, in, out)
}

// Download copies the answer of a POST to w.
func (c *Client) Download(ctx context.Context, path string, w io.Writer) error {
	resp, err := c.send(ctx, http.MethodPost, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("answer of %s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, socketdir.ErrReplaceable) {
		return nil, fmt.Errorf("control plane at %s: %w", c.addr, errors.Unwrap(err))
	}
	if err != nil {
		hint := "is it running? (hauberk-controlplane run; another address: --address or " + AddressEnv + ")"
		return nil, fmt.Errorf("%w at %s: %v; %s", ErrUnreachable, c.addr, errors.Unwrap(err), hint)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var e api.Error
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if json.Unmarshal(b, &e) != nil || e.Error == "" {
		e.Error = strings.TrimSpace(string(b))
	}
	return nil, &StatusError{Code: resp.StatusCode, Message: e.Error}
}

// StatusError is an answer that is not 2xx.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string { return e.Message }
