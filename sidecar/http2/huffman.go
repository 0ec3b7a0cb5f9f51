package http2

// The Huffman code of RFC 7541 Appendix B is canonical: codes of one length follow
// each other in the order of their symbols, and a longer code begins where the
// shorter ones end. So the lengths say everything.
var huffmanLengths = [257]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
	30, // EOS
}

const (
	huffmanMax  = 30 // the longest code
	huffmanFast = 10 // codes up to here are looked up at once
	huffmanEOS  = 256
)

var (
	huffmanCodes [257]uint32
	// huffmanShort maps the next huffmanFast bits to symbol<<8 | length; 0 for the
	// beginning of a longer code.
	huffmanShort [1 << huffmanFast]uint32
	// Of the codes of each length: the first, how many, and where their symbols are.
	huffmanFirst, huffmanCount, huffmanAt [huffmanMax + 1]uint32
	huffmanSymbols                        [257]uint16
)

func init() {
	code, at := uint32(0), uint32(0)
	for n := uint32(1); n <= huffmanMax; n++ {
		code <<= 1
		huffmanFirst[n], huffmanAt[n] = code, at
		for sym, length := range huffmanLengths {
			if uint32(length) != n {
				continue
			}
			huffmanCodes[sym] = code
			huffmanSymbols[at] = uint16(sym)
			if n <= huffmanFast {
				for i := code << (huffmanFast - n); i < (code+1)<<(huffmanFast-n); i++ {
					huffmanShort[i] = uint32(sym)<<8 | n
				}
			}
			code++
			at++
		}
		huffmanCount[n] = code - huffmanFirst[n]
	}
}

// appendHuffmanDecoded decodes src; ok is false where RFC 7541 5.2 sees an error: EOS
// in the string, or an end that is not fewer than eight bits of EOS.
func appendHuffmanDecoded(dst, src []byte) (_ []byte, ok bool) {
	var acc uint64
	bits := uint32(0)
	for {
		for bits <= 48 && len(src) > 0 {
			acc = acc<<8 | uint64(src[0])
			src = src[1:]
			bits += 8
		}
		// The next 32 bits, with ones after the end.
		var next uint32
		if bits >= 32 {
			next = uint32(acc >> (bits - 32))
		} else {
			next = uint32(acc<<(32-bits)) | (1<<(32-bits) - 1)
		}
		sym, n := uint32(0), uint32(0)
		if e := huffmanShort[next>>(32-huffmanFast)]; e != 0 {
			sym, n = e>>8, e&0xff
		} else {
			for n = huffmanFast + 1; ; n++ {
				if i := next>>(32-n) - huffmanFirst[n]; i < huffmanCount[n] {
					sym = uint32(huffmanSymbols[huffmanAt[n]+i])
					break
				}
			}
		}
		if n > bits {
			return dst, bits < 8 && acc&(1<<bits-1) == 1<<bits-1
		}
		if sym == huffmanEOS {
			return dst, false
		}
		dst = append(dst, byte(sym))
		bits -= n
	}
}

// huffmanLen is the encoded length in bytes.
func huffmanLen(s string) int {
	n := 0
	for i := 0; i < len(s); i++ {
		n += int(huffmanLengths[s[i]])
	}
	return (n + 7) / 8
}

// appendHuffman encodes s.
func appendHuffman(dst []byte, s string) []byte {
	var acc uint64
	bits := uint32(0)
	for i := 0; i < len(s); i++ {
		n := uint32(huffmanLengths[s[i]])
		acc = acc<<n | uint64(huffmanCodes[s[i]])
		for bits += n; bits >= 8; bits -= 8 {
			dst = append(dst, byte(acc>>(bits-8)))
		}
	}
	if bits > 0 {
		dst = append(dst, byte(acc<<(8-bits))|byte(0xff>>bits))
	}
	return dst
}
