// Package strictjson decodes JSON that confers trust. encoding/json takes the
// last of two equal keys, matches keys in any case and ignores what follows the
// value; two readers of one such document can come to different conclusions.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth bounds nesting. No document of ours is deeper than five.
const maxDepth = 32

// Unmarshal decodes data into v. Duplicate keys (in any case), unknown keys and
// trailing data are refused.
func Unmarshal(data []byte, v any) error { return decode(data, v, true) }

// UnmarshalOpen is Unmarshal for formats that others may extend: unknown keys
// are allowed.
func UnmarshalOpen(data []byte, v any) error { return decode(data, v, false) }

func decode(data []byte, v any, known bool) error {
	if err := unique(data); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if known {
		d.DisallowUnknownFields()
	}
	return d.Decode(v)
}

// unique walks the one value in data and refuses a second one of the same key.
func unique(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := walk(d, "", 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is data after the JSON value")
	}
	return nil
}

func walk(d *json.Decoder, path string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: nested deeper than %d", path, maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return unexpectedEOF(err)
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for i := 0; d.More(); i++ {
		at := fmt.Sprintf("%s[%d]", path, i)
		if open == '{' {
			k, err := d.Token()
			if err != nil {
				return unexpectedEOF(err)
			}
			key := k.(string)
			at = strings.TrimPrefix(path+"."+key, ".")
			if fold := strings.ToLower(key); seen[fold] {
				return fmt.Errorf("%s: the key appears twice", at)
			} else {
				seen[fold] = true
			}
		}
		if err := walk(d, at, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return unexpectedEOF(err)
}

func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
