package message

import (
	"strconv"
	"time"
)

// AppendGRPCTimeout appends a duration as grpc-timeout has it, in the smallest
// unit of milliseconds and above that takes at most eight digits.
func AppendGRPCTimeout(dst []byte, d time.Duration) []byte {
	const most = 99_999_999
	n, unit := uint64(d.Milliseconds()), byte('m')
	for _, next := range [...]struct {
		by   uint64
		unit byte
	}{{1000, 'S'}, {60, 'M'}, {60, 'H'}} {
		if n <= most {
			break
		}
		n, unit = n/next.by, next.unit
	}
	return append(strconv.AppendUint(dst, n, 10), unit)
}
