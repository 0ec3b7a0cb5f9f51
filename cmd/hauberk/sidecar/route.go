package sidecar

import (
	"encoding/json"
	"fmt"
	"strings"
)

// routeConfig is the part of a RouteConfiguration's JSON that people read.
type routeConfig struct {
	VirtualHosts []struct {
		Routes []route `json:"routes"`
	} `json:"virtualHosts"`
}

type route struct {
	Match struct {
		Prefix    string `json:"prefix"`
		Path      string `json:"path"`
		SafeRegex struct {
			Regex string `json:"regex"`
		} `json:"safeRegex"`
		Headers []struct {
			Name        string          `json:"name"`
			StringMatch json.RawMessage `json:"stringMatch"`
			InvertMatch bool            `json:"invertMatch"`
		} `json:"headers"`
		QueryParameters []struct {
			Name string `json:"name"`
		} `json:"queryParameters"`
	} `json:"match"`
	Route struct {
		Cluster          string `json:"cluster"`
		Timeout          string `json:"timeout"`
		WeightedClusters struct {
			Clusters []struct {
				Name   string `json:"name"`
				Weight int    `json:"weight"`
			} `json:"clusters"`
		} `json:"weightedClusters"`
	} `json:"route"`
	Metadata struct {
		FilterMetadata struct {
			Hauberk struct {
				Origin string `json:"origin"`
			} `json:"hauberk"`
		} `json:"filterMetadata"`
	} `json:"metadata"`
}

func (r *route) match() string {
	m := r.Match
	var s string
	switch {
	case m.Path != "":
		s = "= " + m.Path
	case m.SafeRegex.Regex != "":
		s = "~ " + m.SafeRegex.Regex
	default:
		s = m.Prefix + "*"
	}
	for _, h := range m.Headers {
		not := ""
		if h.InvertMatch {
			not = "not "
		}
		s += fmt.Sprintf(" %s%s %s", not, h.Name, h.StringMatch)
	}
	for _, q := range m.QueryParameters {
		s += " ?" + q.Name
	}
	return s
}

func (r *route) to() string {
	if r.Route.Cluster != "" {
		return r.Route.Cluster
	}
	var legs []string
	for _, c := range r.Route.WeightedClusters.Clusters {
		legs = append(legs, fmt.Sprintf("%.2f%% %s", float64(c.Weight)/100, c.Name))
	}
	return strings.Join(legs, ", ")
}
