package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// TestOneDocument: no part of a file is lost without a word, and none is larger or deeper
// than what it costs.
func TestOneDocument(t *testing.T) {
	deep := func(n int) string {
		return "node: {id: a, cluster: c, metadata: " + strings.Repeat("{a: ", n) + "1" + strings.Repeat("}", n) + "}"
	}
	bomb := "node: {id: a, cluster: c, metadata: {a: &a \"" + strings.Repeat("x", 10000) + "\", l: [" + strings.Repeat("*a,", 1000) + "]}}"
	wide := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		n := string(rune('1' + i))
		wide += "a" + n + ": &a" + n + " [" + strings.Repeat("*a"+string(rune('0'+i))+",", 10) + "]\n"
	}
	wild := []byte{0xff, 0xfe}
	for _, c := range utf16.Encode([]rune("node: {id: a}\n---\nnode: {id: b}\n")) {
		wild = append(wild, byte(c), byte(c>>8))
	}
	const one, json = "node: {id: a, cluster: c}\n", `{"node": {"id": "a", "cluster": "c"}}`
	for name, tc := range map[string]struct{ text, refused string }{
		"one":                          {one, ""},
		"with a beginning":             {"---\n# a\n" + one, ""},
		"with an end":                  {one + "...\n", ""},
		"another one that is empty":    {one + "---\n# end\n", ""},
		"a mark of the order of bytes": {"\ufeff" + one, ""},
		"JSON":                         {json + "\n\n", ""},
		"dashes in a text":             {"node: {id: '---', cluster: 'a --- b'}\n", ""},
		"a certificate":                {"node:\n  cluster: |\n    -----BEGIN X-----\n  id: a\n", ""},
		"aliases":                      {"node: {id: &a b, cluster: *a}\n", ""},
		"two":                          {one + "---\n" + one, "behind the end of its first document"},
		"two after a beginning":        {"---\n" + one + "---\n" + one, "behind the end of its first document"},
		"behind its end":               {one + "...\n" + one, "behind the end of its first document"},
		"JSON twice":                   {json + " " + json, "behind the end of its first document"},
		"JSON and a word":              {json + " junk", "behind the end of its first document"},
		"a flow mapping twice":         {"{node: {id: a}} {node: {id: b}}", "behind the end of its first document"},
		"two, the first indented":      {" " + one + "static_resources: {}\n", "behind the end of its first document"},
		"a comment and JSON twice":     {"# generated\n" + json + "\n" + json, "behind the end of its first document"},
		"blank lines and JSON twice":   {"\r\n \n" + json + "\n" + json, "behind the end of its first document"},
		"a tag and JSON twice":         {"!!map " + json + "\n" + json, "behind the end of its first document"},
		"directives":                   {"%YAML 1.1\n---\n" + one + "...\n%YAML 1.1\n---\n" + one, "behind the end of its first document"},
		"fields behind a directive":    {one + "%YAML 1.1\n" + one, "behind the end of its first document"},
		"a fault behind its end":       {one + "...\t@", "behind the end of its first document"},
		"a fault behind JSON":          {"# generated\n" + json + "]", "behind the end of its first document"},
		"a fault in it":                {" node: {id: a\n", "line 1: did not find expected"},
		"two by CR":                    {"node: {id: a}\r---\rnode: {id: b}\r", "behind the end of its first document"},
		"two by NEL":                   {"node: {id: a}\u0085---\u0085node: {id: b}", "behind the end of its first document"},
		"two by LS":                    {"node: {id: a}\u2028---\u2028node: {id: b}", "behind the end of its first document"},
		"two by PS":                    {"node: {id: a}\u2029...\u2029node: {id: b}", "behind the end of its first document"},
		"two, by a marker before LS":   {one + "---\u2028" + one, "behind the end of its first document"},
		"lines that end with CR LF":    {"node:\r\n  id: a\r\n  cluster: c\r\n", ""},
		"lines that end with CR":       {"node:\r  id: a\r  cluster: c\r", ""},
		"lines that end with NEL":      {"node:\u0085  id: a\u0085  cluster: c\u0085", ""},
		"one, indented":                {"  node: {id: a, cluster: c}\n  admin: {}\n", ""},
		"a comment before it":          {"# generated\n\n" + one, ""},
		"a comment before JSON":        {"# generated\n" + json, ""},
		"a quoted first key":           {"\"node\": {id: a, cluster: c}\n", ""},
		"UTF-16":                       {string(wild), "is not UTF-8"},
		"invalid UTF-8":                {"node: {id: \"a\xff\"}", "is not UTF-8"},
		"as deep as may be":            {deep(90), ""},
		"deeper":                       {deep(101), "deeper than 100 levels"},
		"much deeper":                  {deep(9000), "deeper than 100 levels"},
		"long aliases":                 {bomb, "longer than 8388608 bytes"},
		"aliases of aliases":           {wide, "longer than 8388608 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseBootstrap([]byte(tc.text))
			switch {
			case tc.refused == "" && err != nil:
				t.Error(err)
			case tc.refused != "" && (err == nil || !strings.Contains(err.Error(), tc.refused)):
				t.Errorf("got %v, want %q", err, tc.refused)
			}
		})
	}
}

// TestEndlessBootstrap: what never ends is read as far as a bootstrap may go.
func TestEndlessBootstrap(t *testing.T) {
	file := filepath.Join(t.TempDir(), "endless")
	f, err := os.Create(file)
	if err == nil {
		err = f.Truncate(1 << 40)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := readBootstrap(file)
	if err != nil || len(b) != maxBootstrap+1 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := LoadBootstrap(file); err == nil || !strings.Contains(err.Error(), "is longer than") {
		t.Error(err)
	}
}
