// Package config turns Envoy's v3 resources and bootstrap into the plain
// structs of the data path. It is the only package of the sidecar that reads
// protobuf.
//
// It is strict. Each message type has an entry in the table of this package that
// names the fields which do something and the fields which are accepted without
// effect, with the reason. Any other populated field, any unknown field and any
// extension that is not listed is an error with the field's path, which the xDS
// client sends back as a NACK:
//
//	listener "in": filter_chains[0].filters[0].typed_config.http_filters[1]: unsupported filter "envoy.filters.http.lua"
//
// What a field that is absent means is what Envoy's documentation says it means.
// docs/FIELDS.md is generated from the table.
package config
