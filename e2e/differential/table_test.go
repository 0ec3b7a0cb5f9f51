package differential

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/differential.md")

// TestDocument: docs/differential.md says what the table says.
func TestDocument(t *testing.T) {
	table := theTable(t)
	const file = "../../docs/differential.md"
	want := table.Document()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/differential.md is not what the table says: go test ./e2e/differential -run TestDocument -update")
	}
	if cases, differing := table.count(); cases < 100 || differing > cases/2 {
		t.Errorf("%d cases, %d differ", cases, differing)
	}
}

func TestVerdict(t *testing.T) {
	found := []Difference{{Field: "response.start", Envoy: "a", Hauberk: "b"}, {Field: "log.code", Envoy: "1", Hauberk: "2"}, {Field: "log.flags", Envoy: "-", Hauberk: "DC"}}
	for name, x := range map[string]struct {
		named            []Difference
		unexpected, gone int
	}{
		"none named":         {nil, 3, 0},
		"one named":          {found[:1], 2, 0},
		"with consequences":  {[]Difference{{Field: "response.start", Envoy: "a", Hauberk: "b", And: []string{"log."}}}, 0, 0},
		"any value":          {[]Difference{{Field: "response.start", Envoy: "*", Hauberk: "b", And: []string{"log."}}}, 0, 0},
		"another value":      {[]Difference{{Field: "response.start", Envoy: "a", Hauberk: "c", And: []string{"log."}}}, 1, 1},
		"gone":               {append(slices.Clone(found), Difference{Field: "end", Envoy: "closed"}), 0, 1},
		"a consequence gone": {append(slices.Clone(found[1:]), Difference{Field: "response.start", Envoy: "a", Hauberk: "b", And: []string{"upstream"}}), 0, 1},
	} {
		unexpected, gone := verdict(found, x.named)
		if len(unexpected) != x.unexpected || len(gone) != x.gone {
			t.Errorf("%s: unexpected %v, gone %v", name, unexpected, gone)
		}
	}
}

func TestRequest(t *testing.T) {
	for send, want := range map[string]string{
		"GET /":                            "GET / HTTP/1.1\r\nHost: test.example\r\n\r\n",
		"GET / HTTP/1.0\nHost: h":          "GET / HTTP/1.0\r\nHost: h\r\n\r\n",
		"POST /\n\nhello":                  "POST / HTTP/1.1\r\nHost: test.example\r\nContent-Length: 5\r\n\r\nhello",
		"POST /\nContent-Length: 0":        "POST / HTTP/1.1\r\nHost: test.example\r\nContent-Length: 0\r\n\r\n",
		"POST /\n\n{5}":                    "POST / HTTP/1.1\r\nHost: test.example\r\nContent-Length: 5\r\n\r\nxxxxx",
		"POST /\n\n{5}a":                   "POST / HTTP/1.1\r\nHost: test.example\r\nContent-Length: 4\r\n\r\n{5}a",
		"PUT /\nTransfer-Encoding: x\n\n0": "PUT / HTTP/1.1\r\nHost: test.example\r\nTransfer-Encoding: x\r\n\r\n0",
	} {
		if head, body := request(send); head+body != want {
			t.Errorf("%q: %q, want %q", send, head+body, want)
		}
	}
}

func TestAnswer(t *testing.T) {
	for want, a := range map[string]Answer{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok": {},
		"": {End: "close"},
		"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nhi":                    {Send: "404 No\n\nhi"},
		"HTTP/1.1 204 No Content\r\n\r\n":                                   {Send: "204 No Content"},
		"HTTP/1.1 200 OK\r\n\r\nhi":                                         {Send: "200 OK\n\nhi", End: "close"},
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":    {Send: "200 OK\nTransfer-Encoding: chunked\n\n0\n\n"},
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n...": {Raw: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n..."},
	} {
		if got := a.bytes(); got != want {
			t.Errorf("%+v: %q, want %q", a, got, want)
		}
	}
}

// TestTableIsChecked: a table that says too little is refused.
func TestTableIsChecked(t *testing.T) {
	for name, x := range map[string]struct{ text, want string }{
		"unknown field": {"about: a\nconfigs: [{name: a, about: b, nonsense: 1}]", "nonsense"},
		"no cases":      {"about: a\nconfigs: [{name: a, about: b}]", "nothing is sent"},
		"no reason":     {"about: a\nconfigs: [{name: a, about: b, cases: [{name: c, send: GET /, differs: [{field: end, envoy: x, hauberk: y}]}]}]", "a reason"},
		"no difference": {"about: a\nconfigs: [{name: a, about: b, cases: [{name: c, send: GET /, differs: [{field: end, envoy: x, hauberk: x, why: z}]}]}]", "two values"},
		"no such why":   {"about: a\nconfigs: [{name: a, about: b, cases: [{name: c, send: GET /, differs: [{field: end, envoy: x, hauberk: y, why: '@z'}]}]}]", `there is no reason "z"`},
		"twice":         {"about: a\nconfigs: [{name: a, about: b, cases: [{name: c, send: GET /}, {name: c, send: GET /}]}]", "names of their own"},
	} {
		dir := t.TempDir()
		for file, text := range map[string]string{"common.yaml": "reasons: {}", "x.yaml": x.text} {
			if err := os.WriteFile(dir+"/"+file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
	}
}

func theTable(t *testing.T) *Table {
	t.Helper()
	table, err := Load("testdata")
	if err != nil {
		t.Fatal(err)
	}
	return table
}
