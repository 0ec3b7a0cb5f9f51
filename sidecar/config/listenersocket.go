package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"io/fs"
	"net"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/sockopt"
)

// addresses reads where a listener listens, and with which options.
func addresses(m *listenerv3.Listener, out *listener.Config) error {
	common := listener.SocketOptions{
		ReusePort: m.GetReusePort(), FreeBind: m.GetFreebind().GetValue(), Transparent: m.GetTransparent().GetValue(),
		MultipathTCP: m.GetEnableMptcp(), Backlog: int(m.GetTcpBacklogSize().GetValue()), FastOpen: int(m.GetTcpFastOpenQueueLength().GetValue()),
	}
	if r := m.GetEnableReusePort(); r != nil {
		common.ReusePort = r.GetValue()
	}
	var err error
	if common.Options, err = socketOptions(m.GetSocketOptions(), "socket_options"); err != nil {
		return err
	}
	common.KeepAlive = keepAlive(m.GetTcpKeepalive())
	first, err := listenAddress(m.GetAddress(), common, "address")
	if err != nil {
		return err
	}
	out.Network, out.Address, out.Socket = first.Network, first.Address, first.Socket
	for i, a := range m.GetAdditionalAddresses() {
		here := at("additional_addresses", i)
		own := common
		if o := a.GetSocketOptions(); o != nil {
			if own.Options, err = socketOptions(o.GetSocketOptions(), here+".socket_options.socket_options"); err != nil {
				return err
			}
		}
		if k := a.GetTcpKeepalive(); k != nil {
			own.KeepAlive = keepAlive(k)
		}
		more, err := listenAddress(a.GetAddress(), own, here+".address")
		if err != nil {
			return err
		}
		out.Additional = append(out.Additional, *more)
	}
	return nil
}

func listenAddress(a *corev3.Address, o listener.SocketOptions, path string) (*listener.Address, error) {
	if p := a.GetPipe(); p != nil {
		if p.GetMode() > 0o777 {
			return nil, fail(path+".pipe.mode", "%#o is no file mode", p.GetMode())
		}
		return &listener.Address{Network: "unix", Address: p.GetPath(), Socket: listener.SocketOptions{Mode: fs.FileMode(p.GetMode())}}, nil
	}
	host, port, err := socketAddress(a, path)
	if err != nil {
		return nil, err
	}
	ip, err := ipAddress(host)
	if err != nil {
		return nil, fail(path+".socket_address.address", "%q is not an IP address", host)
	}
	if o.IPv4Compat = a.GetSocketAddress().GetIpv4Compat(); o.IPv4Compat && ip.Is4() {
		return nil, fail(path+".socket_address.ipv4_compat", "is for an IPv6 address; %s is IPv4", ip)
	}
	return &listener.Address{Network: "tcp", Address: net.JoinHostPort(host, strconv.Itoa(port)), Socket: o}, nil
}

func keepAlive(k *corev3.TcpKeepalive) *listener.KeepAlive {
	if k == nil {
		return nil
	}
	return &listener.KeepAlive{
		Idle:     time.Duration(k.GetKeepaliveTime().GetValue()) * time.Second,
		Interval: time.Duration(k.GetKeepaliveInterval().GetValue()) * time.Second,
		Probes:   int(k.GetKeepaliveProbes().GetValue()),
	}
}

// socketOptions reads setsockopt calls. What they are is the writer's business, as
// in Envoy: the kernel refuses what it does not know.
func socketOptions(ms []*corev3.SocketOption, path string) ([]sockopt.Option, error) {
	var out []sockopt.Option
	for i, m := range ms {
		here := at(path, i)
		o := sockopt.Option{Level: int(m.GetLevel()), Name: int(m.GetName())}
		switch v := m.GetValue().(type) {
		case *corev3.SocketOption_IntValue:
			o.Int = int(v.IntValue)
		case *corev3.SocketOption_BufValue:
			o.Bytes = v.BufValue
		default:
			return nil, fail(here, "has neither int_value nor buf_value")
		}
		states := map[corev3.SocketOption_SocketState]sockopt.State{
			corev3.SocketOption_STATE_PREBIND: sockopt.BeforeBind, corev3.SocketOption_STATE_BOUND: sockopt.AfterBind, corev3.SocketOption_STATE_LISTENING: sockopt.Listening,
		}
		state, ok := states[m.GetState()]
		if !ok {
			return nil, fail(here+".state", "unknown value %d", m.GetState())
		}
		o.State = state
		if m.GetType().GetDatagram() != nil && m.GetType().GetStream() == nil {
			return nil, fail(here+".type", "is for datagrams, which no listener takes")
		}
		switch m.GetIpVersion() {
		case corev3.SocketOption_SOCKET_IP_VERSION_IPV4:
			o.Family = 4
		case corev3.SocketOption_SOCKET_IP_VERSION_IPV6:
			o.Family = 6
		}
		out = append(out, o)
	}
	return out, nil
}
