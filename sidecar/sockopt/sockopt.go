// Package sockopt makes the setsockopt calls that a configuration asks for. What they are is the
// writer's business: the kernel refuses what it does not know.
package sockopt

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Option is one setsockopt call.
type Option struct {
	Level, Name int
	Int         int
	Bytes       []byte // instead of Int, when not nil
	State       State
	// Family restricts the option to sockets of IPv4 (4) or IPv6 (6).
	Family int `json:",omitempty"`
}

// State is when an option is set.
type State uint8

// The states.
const (
	BeforeBind State = iota
	AfterBind
	Listening
)

// Set makes the calls of one state on a socket of a family, unix.AF_INET, unix.AF_INET6 or another.
func Set(options []Option, fd int, state State, family int) error {
	for i := range options {
		o := &options[i]
		if o.State != state || o.Family == 4 && family != unix.AF_INET || o.Family == 6 && family != unix.AF_INET6 {
			continue
		}
		if err := o.set(fd); err != nil {
			return fmt.Errorf("socket option %d of level %d: %w", o.Name, o.Level, err)
		}
	}
	return nil
}

func (o *Option) set(fd int) error {
	if o.Bytes != nil {
		return unix.SetsockoptString(fd, o.Level, o.Name, string(o.Bytes))
	}
	return unix.SetsockoptInt(fd, o.Level, o.Name, o.Int)
}

// Int sets a number; an error begins with text.
func Int(fd, level, name, value int, text string) error {
	if err := unix.SetsockoptInt(fd, level, name, value); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// FreeBind lets a socket of a family be bound to an address that the host does not have.
func FreeBind(fd, family int) error {
	if family == unix.AF_INET6 {
		return Int(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1, "IPV6_FREEBIND")
	}
	return Int(fd, unix.SOL_IP, unix.IP_FREEBIND, 1, "IP_FREEBIND")
}
