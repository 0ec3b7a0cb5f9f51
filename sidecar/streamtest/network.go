package streamtest

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
)

// Network is the addresses that can be listened at and dialled within one bubble.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	port      int
}

// NewNetwork returns one on which nobody listens.
func NewNetwork() *Network { return &Network{listeners: map[string]*listener{}} }

// backlog is how many connections may wait to be accepted.
const backlog = 1024

type listener struct {
	n        *Network
	addr     net.Addr
	accepted chan net.Conn
	over     chan struct{}
	once     sync.Once
}

// address is the next that nobody has.
func (n *Network) address() net.Addr {
	n.port++
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 10000 + n.port}
}

// Listen listens at an address of its own.
func (n *Network) Listen() net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &listener{n: n, addr: n.address(), accepted: make(chan net.Conn, backlog), over: make(chan struct{})}
	n.listeners[l.addr.String()] = l
	return l
}

// DialContext is like net.Dialer's. It waits for nothing.
func (n *Network) DialContext(_ context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	refused := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	l := n.listeners[address]
	if l == nil {
		return refused(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	here, there, err := Pair(n.address(), l.addr)
	if err != nil {
		return refused(err)
	}
	select {
	case l.accepted <- there:
		return here, nil
	default:
		_, _ = here.Close(), there.Close()
		return refused(os.NewSyscallError("connect", syscall.EAGAIN))
	}
}

// Dial is DialContext for who does not give up.
func (n *Network) Dial(network, address string) (net.Conn, error) {
	return n.DialContext(context.Background(), network, address)
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.over:
	case c := <-l.accepted:
		return c, nil
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
}

func (l *listener) Addr() net.Addr { return l.addr }

// Close resets what was not accepted.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.n.mu.Lock()
		delete(l.n.listeners, l.addr.String())
		l.n.mu.Unlock()
		close(l.over)
		for {
			select {
			case c := <-l.accepted:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}
