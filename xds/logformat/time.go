package logformat

import (
	"fmt"
	"strconv"
	"time"
)

var strftimeLayouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'j': "002",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January",
	'z': "-0700", 'Z': "MST", 'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04", 'D': "01/02/06",
}

// ParseTime compiles strftime's formats and Envoy's %E3S, %1f to %9f and %s. What it does not know it refuses: a time that
// silently lacks a part would be worse.
func ParseTime(format string) ([]TimePart, error) {
	var parts []TimePart
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			parts = append(parts, TimePart{literal: format[i : i+1]})
			continue
		}
		i++
		if i == len(format) {
			return nil, fmt.Errorf("time format ends with a percent sign")
		}
		c := format[i]
		next := func() byte {
			if i++; i < len(format) {
				return format[i]
			}
			return 0
		}
		switch layout, ok := strftimeLayouts[c]; {
		case ok:
			parts = append(parts, TimePart{layout: layout})
		case c == '%':
			parts = append(parts, TimePart{literal: "%"})
		case c == 's':
			parts = append(parts, TimePart{epoch: true})
		case c == 'f':
			parts = append(parts, TimePart{fraction: 9})
		case '1' <= c && c <= '9':
			if next() != 'f' {
				return nil, fmt.Errorf("time format: %%%c must be followed by f", c)
			}
			parts = append(parts, TimePart{fraction: int(c - '0')})
		case c == 'E':
			d := next()
			if d < '1' || d > '9' || next() != 'S' {
				return nil, fmt.Errorf("time format: %%E must be followed by a digit and S")
			}
			parts = append(parts, TimePart{layout: "05"}, TimePart{literal: "."}, TimePart{fraction: int(d - '0')})
		default:
			return nil, fmt.Errorf("time format: %%%c is unknown", c)
		}
	}
	return parts, nil
}

// TimePart is a literal, a layout of package time, seconds since 1970, or digits
// of the fraction.
type TimePart struct {
	literal, layout string
	epoch           bool
	fraction        int
}

// Append appends what the part shows of t.
func (p *TimePart) Append(dst []byte, t time.Time) []byte {
	switch {
	case p.layout != "":
		return t.AppendFormat(dst, p.layout)
	case p.epoch:
		return strconv.AppendInt(dst, t.Unix(), 10)
	case p.fraction > 0:
		var digits [10]byte
		strconv.AppendInt(digits[:0], 1_000_000_000+int64(t.Nanosecond()), 10)
		return append(dst, digits[1:1+p.fraction]...)
	}
	return append(dst, p.literal...)
}
