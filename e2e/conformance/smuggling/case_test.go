package smuggling

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// testCase is one exchange of the corpus. docs/conformance.md describes the files.
type testCase struct {
	where, name, cite string
	class             string // the file's name
	listener          string // which listener it is sent to
	whole             bool   // only in one piece
	method            string // of the request that a hostile response answers

	client   []string // C> writes of the client
	reply    []string // O> writes of a hostile origin
	end      bool     // the origin closes after its reply
	statuses []int
	conn     string   // what becomes of the client's connection: open, closed or broken
	upstream string   // and of the origin's: kept or dropped, or gone of HTTP/2 where dropped is by option
	reason   string   // of the refusal
	origin   []string // >O messages that the origin sees
	partial  bool     // the last of them is the most it may see of a message that never ends
	seen     string   // >C what the client sees of a response
	frames   []frame  // H> D> T> E> of an HTTP/2 client or host
	trailers bool     // the client of a host asks for them
}

// frame is one of HEADERS (H), DATA (D), trailers (T) and DATA that end the stream though
// others follow (E); behind L they are written a moment later. Fields of a block are separated by " | ".
type frame struct {
	kind byte
	text string
}

// cites is what every case must name.
var cites = regexp.MustCompile(`^(RFC \d{4,5} [0-9A-C]|CVE-\d{4}-\d{4,})`)

// load reads the cases of every file in a directory below testdata.
func load(t testing.TB, dir string) []*testCase {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in testdata/%s: %v", dir, err)
	}
	var all []*testCase
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := parse(f, string(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, cases...)
	}
	return all
}

// reader reads one file.
type reader struct {
	file  string
	words map[string]string // let NAME = text
	cases []*testCase
	c     *testCase
	last  *string // what an indented line goes on with
}

func parse(file, text string) ([]*testCase, error) {
	r := &reader{file: file, words: map[string]string{}}
	for i, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		if err := r.line(i+1, line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
	}
	return r.cases, nil
}

func (r *reader) line(n int, line string) error {
	if name, ok := strings.CutPrefix(line, "== "); ok {
		r.c = &testCase{
			name: name, where: fmt.Sprintf("%s:%d", r.file, n), listener: "mesh", method: "GET",
			class: strings.TrimSuffix(filepath.Base(r.file), ".txt"),
		}
		r.cases = append(r.cases, r.c)
		return nil
	}
	if name, value, ok := strings.Cut(strings.TrimPrefix(line, "let "), " = "); ok && strings.HasPrefix(line, "let ") {
		v, err := r.bytes(value)
		r.words[name] = v
		return err
	}
	c := r.c
	if c == nil {
		return fmt.Errorf("%q stands before the first case", line)
	}
	if raw, ok := strings.CutPrefix(line, "   "); ok {
		if r.last == nil {
			return fmt.Errorf("nothing to go on with")
		}
		v, err := r.bytes(raw)
		*r.last += v
		return err
	}
	arrow, raw, _ := strings.Cut(line, " ")
	switch arrow {
	case "C>":
		return r.append(&c.client, raw)
	case "O>":
		return r.append(&c.reply, raw)
	case "H>", "D>", "T>", "E>":
		v, err := r.bytes(raw)
		c.frames = append(c.frames, frame{line[0], v})
		r.last = &c.frames[len(c.frames)-1].text
		return err
	case ">O":
		return r.append(&c.origin, raw)
	case ">C":
		r.last = &c.seen
		v, err := r.bytes(raw)
		c.seen += v
		return err
	}
	r.last = nil
	switch arrow {
	case "=":
		return c.verdict(strings.Fields(raw))
	case "on":
		c.listener = raw
	case "method":
		c.method = raw
	case "whole":
		c.whole = true
	case "later":
		c.frames = append(c.frames, frame{'L', ""})
	case "trailers":
		c.trailers = true
	case "partial":
		c.partial = true
	case "end":
		c.end = true
	default:
		if c.cite != "" {
			return fmt.Errorf("%q is neither a citation nor anything else", line)
		}
		if !cites.MatchString(line) {
			return fmt.Errorf("%q cites no section of an RFC and no CVE", line)
		}
		c.cite = line
	}
	return nil
}

func (r *reader) append(to *[]string, raw string) error {
	v, err := r.bytes(raw)
	*to = append(*to, v)
	r.last = &(*to)[len(*to)-1]
	return err
}

// verdict reads "400 closed REASON", or for a hostile response "200 open kept".
func (c *testCase) verdict(words []string) error {
	for len(words) > 0 {
		n, err := strconv.Atoi(words[0])
		if err != nil {
			break
		}
		c.statuses = append(c.statuses, n)
		words = words[1:]
	}
	if len(c.frames) > 0 && len(words) == 1 && (words[0] == "malformed" || words[0] == "mismatch") {
		c.conn = words[0]
		return nil
	}
	if len(c.statuses) == 0 || len(words) == 0 || !slices.Contains([]string{"open", "closed", "broken"}, words[0]) {
		return fmt.Errorf("a verdict is a status, and open, closed or broken")
	}
	c.conn = words[0]
	for _, w := range words[1:] {
		if w == "kept" || w == "dropped" || w == "gone" {
			c.upstream = w
		} else {
			c.reason = w
		}
	}
	return nil
}

var escape = regexp.MustCompile(`\\(r|n|t|s|\\|x[0-9a-fA-F]{2})|\$\{(\w+)\}|\(\*(\d+) ([^)]+)\)`)

// bytes reads escapes: \r \n \t \s \\ \xHH, ${NAME} for a let, (*N text) for text N
// times. Whatever else stands in a line means itself.
func (r *reader) bytes(s string) (string, error) {
	var failed error
	out := escape.ReplaceAllStringFunc(s, func(e string) string {
		m := escape.FindStringSubmatch(e)
		switch {
		case m[2] != "":
			v, ok := r.words[m[2]]
			if !ok {
				failed = fmt.Errorf("${%s} was not let", m[2])
			}
			return v
		case m[3] != "":
			n, _ := strconv.Atoi(m[3])
			v, err := r.bytes(m[4])
			if err != nil {
				failed = err
			}
			return strings.Repeat(v, n)
		case m[1][0] == 'x':
			n, _ := strconv.ParseUint(m[1][1:], 16, 8)
			return string([]byte{byte(n)})
		}
		return map[string]string{"r": "\r", "n": "\n", "t": "\t", "s": " ", `\`: `\`}[m[1]]
	})
	return out, failed
}
