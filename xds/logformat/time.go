package logformat

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

var strftimeLayouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'j': "002",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January",
	'z': "-0700", 'Z': "MST", 'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04", 'D': "01/02/06",
	'P': "pm", 'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05", 'r': "03:04:05 PM",
}

// strftimeNumbers are the formats that no layout has: how wide they are, with what they are
// filled, and their number.
var strftimeNumbers = map[byte]struct {
	width int
	fill  byte
	of    func(time.Time) int
}{
	'k': {2, ' ', time.Time.Hour},
	'l': {2, ' ', func(t time.Time) int { return (t.Hour()+11)%12 + 1 }},
	'w': {1, '0', func(t time.Time) int { return int(t.Weekday()) }},
	'u': {1, '0', func(t time.Time) int { return sinceMonday(t) + 1 }},
	'C': {2, '0', func(t time.Time) int { return t.Year() / 100 }},
	'G': {4, '0', func(t time.Time) int { y, _ := t.ISOWeek(); return y }},
	'g': {2, '0', func(t time.Time) int { y, _ := t.ISOWeek(); return y % 100 }},
	'V': {2, '0', func(t time.Time) int { _, w := t.ISOWeek(); return w }},
	'U': {2, '0', func(t time.Time) int { return (t.YearDay() + 6 - int(t.Weekday())) / 7 }},
	'W': {2, '0', func(t time.Time) int { return (t.YearDay() + 6 - sinceMonday(t)) / 7 }},
}

func sinceMonday(t time.Time) int { return (int(t.Weekday()) + 6) % 7 }

// ParseTime compiles strftime's formats and Envoy's: those of seconds and of zones (%E3S, %E*S, %E3f, %E*f, %Ez, %E*z, %:z,
// %::z), %1f to %9f and %s. What it does not know it refuses: a time that silently lacks a part would be worse.
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
		layout, ok := strftimeLayouts[c]
		switch _, number := strftimeNumbers[c]; {
		case ok:
			parts = append(parts, TimePart{layout: layout})
		case number:
			parts = append(parts, TimePart{number: c})
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
		case c == 'E' || c == ':':
			more, n := extended(format[i:])
			if n == 0 {
				return nil, fmt.Errorf("time format: %%%c must be followed by z, :z, a digit or an asterisk and S or f, or *z", c)
			}
			parts = append(parts, more...)
			i += n - 1
		default:
			return nil, fmt.Errorf("time format: %%%c is unknown", c)
		}
	}
	return parts, nil
}

// extended reads what begins with E or a colon; n is how long it is, 0 for none.
func extended(format string) (parts []TimePart, n int) {
	for form, layout := range map[string]string{":z": "-07:00", "::z": "-07:00:00", "Ez": "-07:00", "E*z": "-07:00:00", "E4Y": "2006", "E0S": "05"} {
		if strings.HasPrefix(format, form) {
			return []TimePart{{layout: layout}}, len(form)
		}
	}
	if len(format) < 3 || format[0] != 'E' || format[1] != '*' && (format[1] < '1' || format[1] > '9') {
		return nil, 0
	}
	digits := allDigits
	if format[1] != '*' {
		digits = int(format[1] - '0')
	}
	switch format[2] {
	case 'S':
		if digits == allDigits {
			return []TimePart{{layout: "05.999999999"}}, 3
		}
		return []TimePart{{layout: "05"}, {literal: "."}, {fraction: digits}}, 3
	case 'f':
		return []TimePart{{fraction: digits}}, 3
	}
	return nil, 0
}

// allDigits of a fraction are as many as it has, and one at least.
const allDigits = 10

// TimePart is a literal, a layout of package time, a number, seconds since 1970, or digits
// of the fraction.
type TimePart struct {
	literal, layout string
	number          byte
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
		n := min(p.fraction, 9)
		for p.fraction == allDigits && n > 1 && digits[n] == '0' {
			n--
		}
		return append(dst, digits[1:1+n]...)
	case p.number != 0:
		f := strftimeNumbers[p.number]
		var digits [20]byte
		b := strconv.AppendInt(digits[:0], int64(f.of(t)), 10)
		for range f.width - len(b) {
			dst = append(dst, f.fill)
		}
		return append(dst, b...)
	}
	return append(dst, p.literal...)
}
