package logformat

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Alternatives reads the argument of COALESCE: a JSON object whose "operators" are
// names, or objects with "command", "param" and "max_length". The first of them
// that has a value counts.
func Alternatives(argument string) ([]Piece, error) {
	var in struct {
		Operators []json.RawMessage `json:"operators"`
	}
	d := json.NewDecoder(strings.NewReader(argument))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, fmt.Errorf("the argument is no JSON object with operators: %w", err)
	}
	if d.More() {
		return nil, errors.New("something follows the JSON object")
	}
	if len(in.Operators) == 0 {
		return nil, errors.New("operators is empty")
	}
	out := make([]Piece, len(in.Operators))
	for i, raw := range in.Operators {
		p, err := alternative(raw)
		if err != nil {
			return nil, fmt.Errorf("operators[%d]: %w", i, err)
		}
		out[i] = p
	}
	return out, nil
}

func alternative(raw json.RawMessage) (Piece, error) {
	var in struct {
		Command   string `json:"command"`
		Param     string `json:"param"`
		MaxLength *int   `json:"max_length"`
	}
	if err := json.Unmarshal(raw, &in.Command); err != nil {
		d := json.NewDecoder(strings.NewReader(string(raw)))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil {
			return Piece{}, fmt.Errorf("is neither a name nor an object with command, param and max_length: %w", err)
		}
	}
	p := Piece{Name: in.Command, Argument: in.Param}
	if in.MaxLength != nil {
		if p.Max = *in.MaxLength; p.Max <= 0 {
			return Piece{}, fmt.Errorf("max_length %d is not positive", p.Max)
		}
	}
	if Operators[p.Name].Kind == First {
		return Piece{}, fmt.Errorf("%s stands within itself", p.Name)
	}
	return p, check(p.Name, p.Argument, p.Argument != "", p.Max)
}
