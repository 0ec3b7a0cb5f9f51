package strictjson

import (
	"strings"
	"testing"
)

type doc struct {
	A int            `json:"a"`
	B map[string]int `json:"b"`
	C []doc          `json:"c"`
}

func TestUnmarshal(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"plain", `{"a":1,"b":{"x":1,"y":2},"c":[{"a":2},{"a":3}]}`, ""},
		{"space after", "{\"a\":1}\n", ""},
		{"duplicate", `{"a":1,"a":2}`, "a: the key appears twice"},
		{"duplicate in another case", `{"a":1,"A":2}`, "the key appears twice"},
		{"duplicate by escape", `{"a":1,"\u0061":2}`, "the key appears twice"},
		{"duplicate below", `{"c":[{"a":1},{"b":{"x":1,"x":1}}]}`, "c[1].b.x: the key appears twice"},
		{"unknown", `{"z":1}`, "unknown field"},
		{"trailing", `{"a":1}{"a":2}`, "data after"},
		{"trailing garbage", `{"a":1} x`, "after"},
		{"cut off", `{"a":1,"b":{`, "unexpected EOF"},
		{"empty", ``, "unexpected EOF"},
		{"deep", strings.Repeat("[", 100) + strings.Repeat("]", 100), "nested deeper"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var d doc
			err := Unmarshal([]byte(tc.in), &d)
			switch {
			case tc.want == "" && err != nil:
				t.Fatal(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Fatalf("got %v, want %q", err, tc.want)
			}
		})
	}
	var d doc
	if err := UnmarshalOpen([]byte(`{"a":1,"new":true}`), &d); err != nil || d.A != 1 {
		t.Fatalf("open: %v", err)
	}
	if err := UnmarshalOpen([]byte(`{"a":1,"new":true,"new":1}`), &d); err == nil {
		t.Fatal("open: duplicate accepted")
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":{"x":1}}`))
	f.Add([]byte(`[{"a":1},"x",null,1e9]`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var v any
		_ = UnmarshalOpen(in, &v)
	})
}
