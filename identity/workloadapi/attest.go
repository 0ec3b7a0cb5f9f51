package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc/credentials"
)

// peerReader is what the kernel knows of processes.
type peerReader interface {
	// peer says who connected, and pins that process.
	peer(*net.UnixConn) (process, error)
	// cgroup is /proc/PID/cgroup.
	cgroup(pid int32) ([]byte, error)
}

// process is a peer, pinned: pidfd is readable once it has ended.
type process struct {
	uid, gid uint32
	pid      int32
	pidfd    *os.File
}

// attestor is the socket's transport credentials: instead of a handshake on the
// wire it asks the kernel. Every call finds the answer in its context.
type attestor struct{ s *Server }

// callerInfo carries the caller to the handlers.
type callerInfo struct {
	credentials.CommonAuthInfo
	caller *Caller
}

// AuthType implements credentials.AuthInfo.
func (callerInfo) AuthType() string { return "unix-peer" }

// ServerHandshake implements credentials.TransportCredentials.
func (a attestor) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, caller, err := a.attest(raw)
	if err != nil {
		a.s.cfg.Observer.Refused()
		a.s.log.Warn("connection refused", "reason", err)
		return nil, nil, err
	}
	a.s.log.Debug("connected", "caller", caller.String())
	// Bytes in a Unix socket do not leave the kernel.
	level := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	return conn, callerInfo{level, caller}, nil
}

func (a attestor) attest(raw net.Conn) (net.Conn, *Caller, error) {
	unix, ok := raw.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("%T is not a Unix socket", raw)
	}
	p, err := a.s.reads.peer(unix)
	if err != nil {
		return nil, nil, err
	}
	c := &Caller{UID: p.uid, GID: p.gid, PID: p.pid, server: a.s, pidfd: p.pidfd}
	if c.PID <= 0 {
		return nil, nil, errors.Join(fmt.Errorf("%s: the caller's PID namespace is not visible from the agent's: run the agent in the host's", c), p.pidfd.Close())
	}
	release, err := a.s.use.connection(c.UID)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", c, err), p.pidfd.Close())
	}
	return a.s.peers.add(raw, p.pidfd, release), c, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (attestor) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("host socket: these credentials are a server's")
}

// Info implements credentials.TransportCredentials.
func (attestor) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix-peer"}
}

// Clone implements credentials.TransportCredentials.
func (a attestor) Clone() credentials.TransportCredentials { return a }

// OverrideServerName implements credentials.TransportCredentials.
func (attestor) OverrideServerName(string) error { return nil }

// peers are the open connections, each with a goroutine that ends it when the
// process that opened it does.
type peers struct{ watchers sync.WaitGroup }

func newPeers() *peers { return &peers{} }

// wait returns when every connection has been closed.
func (p *peers) wait() { p.watchers.Wait() }

func (p *peers) add(raw net.Conn, pidfd *os.File, release func()) net.Conn {
	c := &peerConn{Conn: raw, pidfd: pidfd, release: release}
	p.watchers.Go(func() {
		waitExit(pidfd)
		_ = c.Close()
	})
	return c
}

// peerConn gives back what a connection holds, once.
type peerConn struct {
	net.Conn
	pidfd   *os.File
	release func()
	once    sync.Once
	err     error
}

// Close implements net.Conn.
func (c *peerConn) Close() error {
	c.once.Do(func() {
		c.err = errors.Join(c.Conn.Close(), c.pidfd.Close())
		c.release()
	})
	return c.err
}
