package telemetry

import "fmt"

var strftimeLayouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'j': "002",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January",
	'z': "-0700", 'Z': "MST", 'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04", 'D': "01/02/06",
}

// strftime compiles a time format. What it does not know it refuses: a time that
// silently lacks a part would be worse.
func strftime(format string) ([]timePart, error) {
	var parts []timePart
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			parts = append(parts, timePart{literal: string(format[i])})
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
			parts = append(parts, timePart{layout: layout})
		case c == '%':
			parts = append(parts, timePart{literal: "%"})
		case c == 's':
			parts = append(parts, timePart{epoch: true})
		case c == 'f':
			parts = append(parts, timePart{fraction: 9})
		case '1' <= c && c <= '9':
			if next() != 'f' {
				return nil, fmt.Errorf("time format: %%%c must be followed by f", c)
			}
			parts = append(parts, timePart{fraction: int(c - '0')})
		case c == 'E':
			d := next()
			if d < '1' || d > '9' || next() != 'S' {
				return nil, fmt.Errorf("time format: %%E must be followed by a digit and S")
			}
			parts = append(parts, timePart{layout: "05"}, timePart{literal: "."}, timePart{fraction: int(d - '0')})
		default:
			return nil, fmt.Errorf("time format: %%%c is unknown", c)
		}
	}
	return parts, nil
}
