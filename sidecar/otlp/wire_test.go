package otlp

import (
	"testing"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRejected(t *testing.T) {
	b, err := proto.Marshal(&collectorv1.ExportTraceServiceResponse{PartialSuccess: &collectorv1.ExportTracePartialSuccess{RejectedSpans: 3, ErrorMessage: "why"}})
	if err != nil {
		t.Fatal(err)
	}
	later := protowire.AppendFixed32(protowire.AppendTag(nil, 9, protowire.Fixed32Type), 7) // of a later version
	if n, why := rejected(append(later, b...)); n != 3 || why != "why" {
		t.Error(n, why)
	}
}

func FuzzRejected(f *testing.F) {
	f.Add([]byte{0x0a, 2, 8, 3})
	f.Fuzz(func(_ *testing.T, b []byte) { rejected(b) })
}
