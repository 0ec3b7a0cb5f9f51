package cluster

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

func TestTransportFailure(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, tc := range []struct {
		err  Error
		want string
	}{
		{Error{Kind: ConnectRefused, Host: "192.0.2.1:80", Err: refused}, "delayed connect error: Connection refused"},
		{Error{Kind: ConnectRefused, Host: "192.0.2.1:80", Err: syscall.ENETUNREACH}, "immediate connect error: Network is unreachable|remote address:192.0.2.1:80"},
		{Error{Kind: ConnectRefused, Host: "unix:/s", Err: syscall.ENOENT}, "immediate connect error: No such file or directory|remote address:/s"},
		{Error{Kind: TLSFailure, Host: "192.0.2.1:80", Err: errors.New("x509: expired")}, "TLS_error:|x509: expired:TLS_error_end"},
		{Error{Kind: ConnectTimeout, Host: "192.0.2.1:80", Err: context.DeadlineExceeded}, ""},
		{Error{Kind: Canceled, Host: "192.0.2.1:80", Err: syscall.ECONNABORTED}, ""},
		{Error{Kind: OverflowPending}, ""},
		{Error{Kind: ConnectRefused, Host: "192.0.2.1:80", Err: errors.New("what")}, ""},
		{Error{Kind: ConnectRefused}, ""},
	} {
		if got := tc.err.TransportFailure(); got != tc.want {
			t.Errorf("%v: %q, want %q", &tc.err, got, tc.want)
		}
	}
}
