package cluster

import (
	"cmp"
	"fmt"

	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
)

// holds says why the cluster cannot have endpoints whose addresses are good.
func (c *Config) holds(a *Assignment) error {
	return cmp.Or(c.Subsets.check(a), c.announcesAll(a))
}

// announcesAll says which endpoint's headers would have no room for all that is configured. Only what
// clients said may be left out: that a host depends on what is missing is nothing anybody would see.
func (c *Config) announcesAll(a *Assignment) error {
	if a == nil || !c.announces() {
		return nil
	}
	for i, l := range a.Localities {
		for j := range l.Endpoints {
			e := &l.Endpoints[j]
			if e.Extensions == (proxytlv.Kept{}) {
				continue
			}
			version, more := c.Announce, c.Extensions
			if socket := c.socketFor(e); socket != nil {
				version, more = socket.Announce, socket.Extensions
			}
			if version != 2 || more == nil {
				continue
			}
			if n := len(more.behind(e.Extensions.List())); n > proxytlv.MostAdded {
				return fmt.Errorf("localities[%d].endpoints[%d]: its added_tlvs have with those of the cluster %d bytes, and a header has room for %d", i, j, n, proxytlv.MostAdded)
			}
		}
	}
	return nil
}
