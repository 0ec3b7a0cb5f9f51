// Package source is the contract between the control plane and the places it
// learns the catalog from: Consul, or a directory of files.
package source

import (
	"context"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// Source delivers the catalog and every later change of it.
//
// Run calls sink until ctx ends, from one goroutine at a time, and returns
// ctx's error or the error that makes going on pointless (a refused token, a
// directory that does not parse at start). Its rules, held to by one contract
// test for every implementation (package sourcetest):
//
//   - The first update has Full set and holds everything. Nothing is sent
//     before everything has been read once.
//   - Later updates hold only what changed. Deletion is explicit: an entry in
//     Deleted*, never an absence.
//   - No false empty: an error, a filtered answer or a lost connection sends
//     nothing. The last state stands, and Status tells.
//   - An update is all or nothing for the files it came from: a directory that
//     does not parse sends nothing and reports the error in Status.
type Source interface {
	Run(ctx context.Context, sink Sink) error
	// Status may be called from any goroutine.
	Status() Status
}

// Confirmer is a source that can be asked a second time, past caches and stale
// replicas. The store asks before it believes that a service lost its last
// endpoint.
type Confirmer interface {
	// Confirm reads the service's instances from the server's leader. No
	// instances and no error means that there are none.
	Confirm(ctx context.Context, service catalog.Name) ([]*catalog.Instance, error)
}

// Sink takes updates. Update must not be changed after the call. It blocks
// only as long as the sink's owner needs to queue the update.
type Sink interface {
	Update(ctx context.Context, u Update) error
}

// Update is a change of the catalog.
type Update struct {
	// Full says that what is not in the update does not exist.
	Full bool
	// Instances replaces the whole list of each named service. An empty list is
	// a service without mesh endpoints.
	Instances map[catalog.Name][]*catalog.Instance
	// DeletedServices are services that no longer exist.
	DeletedServices []catalog.Name
	// Entries are new or changed config entries; Origins says where each came
	// from, for people.
	Entries        []api.ConfigEntry
	Origins        map[catalog.EntryKey]string
	DeletedEntries []catalog.EntryKey
	// Broken names entries that exist in a form the control plane cannot use
	// and that never had a usable one, and why. They are not absent: what
	// depends on them fails, and intentions deny. An entry that had a usable
	// form keeps it, and only Status tells. An entry that comes in Entries or
	// DeletedEntries is no longer broken.
	Broken map[catalog.EntryKey]string
	// Datacenter, when set, is where the source's world is.
	Datacenter string
	// DefaultAllow, when set, is the verdict where no intention matches.
	DefaultAllow *bool
	// Reconnected is set on the first update after the source lost and regained
	// its server, or the server's index went back. That update is sent at once,
	// even if it holds no change. The store then distrusts mass loss (DESIGN 3):
	// Consul restores every check as critical when it restarts.
	Reconnected bool
	// Received is when the source learned of the change, the start of the
	// convergence clock. Index is Consul's, zero for files.
	Received time.Time
	Index    uint64
}

// Status tells how a source is doing.
type Status struct {
	// Kind is "consul" or "files"; Where is its address or directory.
	Kind, Where string
	// Synced is true once the full set was delivered.
	Synced bool
	// Index is the highest Consul index seen.
	Index uint64
	// LastSuccess is when the source last had an answer.
	LastSuccess time.Time
	// Errors holds the current problems by what they concern (a watch, a file
	// and line), each a sentence that says what to do. Empty when all is well.
	Errors map[string]string
}

// ConcernTokenFile is the key in Errors of a token file that cannot be read.
const ConcernTokenFile = "token file"

// concerns are the kinds of what an error of a Consul source concerns: a key of
// Errors is one of them, or begins with it.
var concerns = []string{"config entries", "consul", "default policy", "entry", "instance", "service", "services", ConcernTokenFile}

// Concerns counts the problems by kind, for metrics; a kind without any is
// there too. Everything of a files source is of the kind "file".
func (s Status) Concerns() map[string]int {
	if s.Kind == "files" {
		return map[string]int{"file": len(s.Errors)}
	}
	out := make(map[string]int, len(concerns))
	for _, c := range concerns {
		out[c] = 0
	}
	for key := range s.Errors {
		for _, c := range concerns {
			if key == c || strings.HasPrefix(key, c+" ") {
				out[c]++
			}
		}
	}
	return out
}
