package config

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// never stands for "no timeout" where a zero duration of the data path means
// its default. It is longer than any process lives and still adds to a time.
const never = 10 * 365 * 24 * time.Hour

// timeout reads a duration where absent means the data path's default, and an
// explicit zero that there is no limit.
func timeout(d *durationpb.Duration, path string) (time.Duration, error) {
	v, err := duration(d, path)
	if d != nil && err == nil && v == 0 {
		v = never
	}
	return v, err
}

// duration reads a duration; absent is zero.
func duration(d *durationpb.Duration, path string) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, fail(path, "%v", err)
	}
	v := d.AsDuration()
	if v < 0 {
		return 0, fail(path, "must not be negative")
	}
	return min(v, never), nil
}

// optional reads a duration where absence matters.
func optional(d *durationpb.Duration, path string) (*time.Duration, error) {
	if d == nil {
		return nil, nil
	}
	v, err := duration(d, path)
	return &v, err
}

// boolean reads a flag where absence matters.
func boolean(b *wrapperspb.BoolValue) *bool {
	if b == nil {
		return nil
	}
	v := b.GetValue()
	return &v
}

// only refuses fields of a message that is shared with other places and whose
// other fields have no meaning here.
func only(m proto.Message, path, why string, names ...protoreflect.Name) error {
	var err error
	m.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(names, fd.Name()) {
			err = fail(under(path, string(fd.Name())), "%s", why)
		}
		return err == nil
	})
	return err
}

// extension returns what the check unpacked from an Any.
func extension[T proto.Message](d *decoder, a *anypb.Any) (T, bool) {
	m, ok := d.unpacked[a].(T)
	return m, ok
}

// address reads a socket address or a Unix socket's path.
func (d *decoder) address(a *corev3.Address, path string) (network, addr string, err error) {
	if p := a.GetPipe(); p != nil {
		if p.GetMode() != 0 {
			return "", "", fail(path+".pipe.mode", "is for listeners; remove the field")
		}
		return "unix", p.GetPath(), nil
	}
	host, port, err := d.hostPort(a, path)
	if err != nil {
		return "", "", err
	}
	if _, err := ipAddress(host); err != nil {
		return "", "", fail(path+".socket_address.address", "%q is not an IP address", host)
	}
	return "tcp", net.JoinHostPort(host, strconv.Itoa(port)), nil
}

func (d *decoder) hostPort(a *corev3.Address, path string) (string, int, error) {
	if a.GetSocketAddress().GetIpv4Compat() {
		return "", 0, fail(path+".socket_address.ipv4_compat", "is for listeners; remove the field")
	}
	return socketAddress(a, path)
}

func socketAddress(a *corev3.Address, path string) (string, int, error) {
	s := a.GetSocketAddress()
	if s == nil {
		return "", 0, fail(path, "a socket_address is needed")
	}
	if s.GetProtocol() != corev3.SocketAddress_TCP {
		return "", 0, fail(path+".socket_address.protocol", "only TCP is supported")
	}
	if s.GetAddress() == "" {
		return "", 0, fail(path+".socket_address.address", "is empty")
	}
	return s.GetAddress(), int(s.GetPortValue()), nil
}

// ipAddress reads an address of a socket. A zone is an index, or, where an address is one of
// a link, the name of an interface that this host has (RFC 4007 11.2): any other is no address.
func ipAddress(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() == "" {
		return ip, err
	}
	if _, err := strconv.ParseUint(ip.Zone(), 10, 32); err == nil {
		return ip, nil
	}
	if !ip.IsLinkLocalUnicast() && !ip.IsLinkLocalMulticast() {
		return ip, fmt.Errorf("%s is of no link", ip)
	}
	_, err = net.InterfaceByName(ip.Zone())
	return ip, err
}

// prefixes reads CIDR ranges.
func prefixes(ranges []*corev3.CidrRange, path string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, r := range ranges {
		p, err := prefix(r, at(path, i))
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// cidrRange is Envoy's, or that of xDS.
type cidrRange interface {
	GetAddressPrefix() string
	GetPrefixLen() *wrapperspb.UInt32Value
}

func prefix(r cidrRange, path string) (netip.Prefix, error) {
	ip, err := netip.ParseAddr(r.GetAddressPrefix())
	if err != nil {
		return netip.Prefix{}, fail(path+".address_prefix", "%q is not an IP address", r.GetAddressPrefix())
	}
	bits := int(r.GetPrefixLen().GetValue())
	if ip.Is4In6() && bits <= 128 {
		// Addresses of IPv4 are compared as such, however they are written, and no other is in
		// ::ffff:0:0/96 (RFC 4291 2.5.5.2): a range of IPv6 would have none of them.
		if bits < 96 {
			return netip.Prefix{}, fail(path+".prefix_len", "%d has more than the addresses of IPv4 in IPv6, of which %s is one: write a range of IPv4, or of others", bits, ip)
		}
		ip, bits = ip.Unmap(), bits-96
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}, fail(path+".prefix_len", "%d is too long for %s", r.GetPrefixLen().GetValue(), ip)
	}
	return p, nil
}

// facts returns Hauberk's own metadata of a resource.
func facts(m *corev3.Metadata, path string) (map[string]string, error) {
	s := m.GetFilterMetadata()[names.MetadataNamespace]
	if s == nil {
		return nil, nil
	}
	path += ".filter_metadata[" + strconv.Quote(names.MetadataNamespace) + "]"
	out := map[string]string{}
	for k, v := range s.GetFields() {
		str, ok := v.AsInterface().(string)
		if !ok {
			b, _ := json.Marshal(v.AsInterface())
			return nil, fail(under(path, k), "is %s, not a string", b)
		}
		out[k] = str
	}
	return out, nil
}

// stringMatch reads a StringMatcher.
func stringMatch(m *matcherv3.StringMatcher, path string) (*route.StringMatch, error) {
	out := &route.StringMatch{IgnoreCase: m.GetIgnoreCase()}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		out.Exact = &p.Exact
	case *matcherv3.StringMatcher_Prefix:
		out.Prefix = &p.Prefix
	case *matcherv3.StringMatcher_Suffix:
		out.Suffix = &p.Suffix
	case *matcherv3.StringMatcher_Contains:
		out.Contains = &p.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		re, err := route.Regex(p.SafeRegex.GetRegex())
		if err != nil {
			return nil, fail(path+".safe_regex", "%v", err)
		}
		if m.GetIgnoreCase() {
			return nil, fail(path+".ignore_case", "does not apply to safe_regex; write (?i) into the expression")
		}
		out.Regex = re
	default:
		return nil, fail(path, "has no pattern")
	}
	return out, nil
}
