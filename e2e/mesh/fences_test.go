//go:build e2e

package mesh

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// fence is a fenced block of a document, with what the comment above it says of
// how CI treats it:
//
//	<!-- ci: step -->            its commands are steps of .ci/run
//	<!-- ci: not run: REASON --> it is not run, and why
//	<!-- ci: as uid N -->        it is run as that user
//	<!-- ci: file PATH -->       it is written to that file, for the commands after it
//	<!-- ci: consul policy -->   a real Consul takes it, and its token is enough
//	<!-- ci: config entry -->    a real Consul takes it, and the control plane all that it says
//	<!-- ci: config entry of files --> a control plane of files does: Consul 1.13 knows it not
//	<!-- ci: envoy -->           a real Envoy validates it
type fence struct {
	file, lang, ci string
	line           int
	lines          []string
}

func (f *fence) String() string { return fmt.Sprintf("%s:%d", f.file, f.line) }

var annotation = regexp.MustCompile(`^<!-- ci: (.+) -->$`)

// fences reads the blocks of a Markdown file, in order.
func fences(path, name string) ([]*fence, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []*fence
	var open *fence
	last := ""
	for i, line := range strings.Split(string(b), "\n") {
		lang, fenced := strings.CutPrefix(line, "```")
		switch {
		case fenced && open == nil:
			open = &fence{file: name, line: i + 1, lang: lang}
			if m := annotation.FindStringSubmatch(last); m != nil {
				open.ci = m[1]
			}
		case fenced:
			out, open = append(out, open), nil
		case open != nil:
			open.lines = append(open.lines, line)
		}
		if open == nil && annotation.MatchString(last) && !fenced {
			return nil, fmt.Errorf("%s:%d: %s stands above no block", name, i, last)
		}
		last = line
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the block does not end", open)
	}
	return out, nil
}

// check refuses a block that CI would pass over without anybody having said so.
func (f *fence) check() error {
	configuration := f.lang == "yaml" || f.lang == "hcl" || f.lang == "json"
	reason, notRun := strings.CutPrefix(f.ci, "not run: ")
	switch {
	case f.lang == "text" && f.ci == "":
	case notRun && len(reason) > 10 && f.lang != "text":
	case f.lang == "sh" && (f.ci == "" || f.ci == "step" || strings.HasPrefix(f.ci, "as uid ")):
	case configuration && (f.ci == "consul policy" || f.ci == "config entry" || f.ci == "config entry of files" || f.ci == "envoy" || strings.HasPrefix(f.ci, "file /")):
	default:
		return fmt.Errorf("%s: a block in %q with %q: commands are sh, configuration says how it is checked, the rest is text", f, f.lang, f.ci)
	}
	return nil
}

// TestFences: what nobody would run is refused.
func TestFences(t *testing.T) {
	for text, want := range map[string]string{
		"```sh\nx\n```\n":                                  "",
		"```text\nx\n```\n":                                "",
		"<!-- ci: as uid 7 -->\n```sh\nx\n```\n":           "",
		"<!-- ci: not run: it takes hours -->\n```sh\n```": "",
		"<!-- ci: file /a/b -->\n```yaml\n```":             "",
		"```\nx\n```\n":                                    "d:1: a block",
		"\n```yaml\nx\n```\n":                              "d:2: a block",
		"<!-- ci: not run: -->\n```sh\n```":                "d:2: a block",
		"<!-- ci: skip -->\n```sh\n```":                    "d:2: a block",
		"<!-- ci: config entry -->\n```hcl\n```":           "",
		"<!-- ci: envoy -->\n```sh\n```":                   "d:2: a block",
		"<!-- ci: step -->\n```text\n```":                  "d:2: a block",
		"<!-- ci: step -->\n\n```sh\n```":                  "d:1: <!-- ci: step --> stands above no block",
		"```sh\nx\n":                                       "d:1: the block does not end",
	} {
		file := write(t, filepath.Join(t.TempDir(), "d.md"), text)
		all, err := fences(file, "d")
		for _, f := range all {
			err = errors.Join(err, f.check())
		}
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
