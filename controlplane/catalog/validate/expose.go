package validate

import (
	"fmt"

	"github.com/hashicorp/consul/api"
)

// expose checks what may be asked of an application beside the mesh.
func (c *checker) expose(path string, e api.ExposeConfig) {
	c.not(e.Checks, path+".Checks", "the checks of an agent are not known here; name their paths in Paths")
	seen := map[string]bool{}
	for i, p := range e.Paths {
		at := fmt.Sprintf("%s.Paths[%d].", path, i)
		c.not(p.Path == "" || p.Path[0] != '/', at+"Path", "must begin with /")
		c.oneOf(at+"Protocol", p.Protocol, "http", "http2")
		c.port(at+"ListenerPort", p.ListenerPort)
		c.port(at+"LocalPathPort", p.LocalPathPort)
		c.not(p.ParsedFromCheck, at+"ParsedFromCheck", "is Consul's own mark; remove it")
		where := fmt.Sprintf("%d %s", p.ListenerPort, p.Path)
		c.not(seen[where], at+"Path", "is exposed on this port already")
		seen[where] = true
	}
}

func (c *checker) port(path string, n int) {
	if n < 1 || n > 65535 {
		c.add(path, "%d is not a port", n)
	}
}
