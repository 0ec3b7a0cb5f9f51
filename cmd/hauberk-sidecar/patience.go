package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
)

// What a sidecar in a mesh does of itself.
const (
	meshFirstByte = 10 * time.Second
	meshHandshake = 5 * time.Second
	meshBodyRate  = 100
)

// patience is how long clients are waited for. A bootstrap alone gets what Envoy does of
// itself: nothing ends them but the timeouts that it has.
func (o *options) patience() (p hcm.Patience, err error) {
	mesh := o.stateDir != ""
	if mesh {
		p.Handshake = meshHandshake
	}
	switch o.firstByte {
	case "off":
	case "auto":
		if mesh {
			p.FirstByte, p.FirstByteOfStrangers = meshFirstByte, true
		}
	default:
		if p.FirstByte, err = time.ParseDuration(o.firstByte); err != nil || p.FirstByte <= 0 {
			return p, fmt.Errorf("--first-byte-timeout %q: want a time such as 10s, auto or off", o.firstByte)
		}
	}
	switch o.bodyRate {
	case "off":
	case "auto":
		if mesh {
			p.BodyRate, p.BodyRateOfStrangers = meshBodyRate, true
		}
	default:
		if p.BodyRate, err = strconv.ParseInt(o.bodyRate, 10, 64); err != nil || p.BodyRate <= 0 || p.BodyRate > hcm.MostBodyRate {
			return p, fmt.Errorf("--least-body-rate %q: want bytes a second, at most %d, auto or off", o.bodyRate, hcm.MostBodyRate)
		}
	}
	return p, nil
}
