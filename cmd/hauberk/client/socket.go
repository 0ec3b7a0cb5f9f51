package client

import (
	"context"
	"net"
	"os"
	"path/filepath"

	"github.com/hauberk-mesh/hauberk/internal/socketdir"
)

// dialSocket calls a socket that nobody but root and this user could have put
// there: what answers there makes tokens, and says which key they are pinned to.
func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	// What is judged is what is called: a symbolic link may point elsewhere by then.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	trusted := func(owner int) bool { return mayOwn(os.Geteuid(), owner) }
	if err := socketdir.Check(filepath.Dir(real), trusted); err != nil {
		return nil, err
	}
	info, err := os.Lstat(real)
	if err != nil {
		return nil, err
	}
	if err := socketdir.CheckOwner(real, info, trusted); err != nil {
		return nil, err
	}
	return (&net.Dialer{}).DialContext(ctx, "unix", real)
}

// mayOwn: root calls control planes that run as users of their own; others call
// their own and root's.
func mayOwn(caller, owner int) bool { return caller == 0 || owner == 0 || owner == caller }
