package admin

import (
	"fmt"
	"net/http"
	"runtime"
	rtmetrics "runtime/metrics"
	"runtime/pprof"
	"time"
)

// longestProfile bounds what one request may ask for.
const longestProfile = 5 * time.Minute

// memoryNames are what GET /memory tells, with the runtime's names of it.
var memoryNames = map[string]string{
	"allocated_objects":      "/gc/heap/allocs:objects",
	"allocated_tiny_objects": "/gc/heap/tiny/allocs:objects",
	"heap_bytes":             "/memory/classes/heap/objects:bytes",
	"heap_unused_bytes":      "/memory/classes/heap/unused:bytes",
	"heap_free_bytes":        "/memory/classes/heap/free:bytes",
	"runtime_bytes":          "/memory/classes/metadata/other:bytes",
	"stack_bytes":            "/memory/classes/heap/stacks:bytes",
	"goroutines":             "/sched/goroutines:goroutines",
}

func memory(w http.ResponseWriter, _ *http.Request) {
	out := map[string]uint64{}
	for name, key := range memoryNames {
		s := []rtmetrics.Sample{{Name: key}}
		rtmetrics.Read(s)
		if s[0].Value.Kind() == rtmetrics.KindUint64 {
			out[name] = s[0].Value.Uint64()
		}
	}
	writeJSON(w, out)
}

// cpuProfile answers with a CPU profile in pprof's format. One can be taken at a
// time; it ends early with its request.
func cpuProfile(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.URL.Query().Get("time"))
	if err != nil || d <= 0 || d > longestProfile {
		http.Error(w, fmt.Sprintf("time %q: want a duration up to %s, such as time=10s", r.URL.Query().Get("time"), longestProfile), http.StatusBadRequest)
		return
	}
	// Until the profile ends nothing but the header is written.
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := pprof.StartCPUProfile(w); err != nil {
		http.Error(w, "another CPU profile is being taken: "+err.Error(), http.StatusConflict)
		return
	}
	defer pprof.StopCPUProfile()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

// heapProfile answers with what is in use on the heap, in pprof's format: sizes and the
// code that asked for them, nothing of the contents.
func heapProfile(w http.ResponseWriter, _ *http.Request) {
	runtime.GC() // the profile is of the last collection
	w.Header().Set("Content-Type", "application/octet-stream")
	_ = pprof.Lookup("heap").WriteTo(w, 0)
}
