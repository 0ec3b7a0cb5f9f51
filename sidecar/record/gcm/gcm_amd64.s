//go:build gc && !purego

#include "textflag.h"

// AES-GCM of NIST SP 800-38D with four blocks to a register. A block of the hash is kept with
// its bytes the other way round, as a number whose highest bit is the coefficient of x^0.
// Registers from Z16 on are left alone: a kernel that switches from a thread that has used them
// has to keep 1 KB more of it from then on.

// Where the fields of wide are.
#define LAST    240
#define POWERS  256
// The power of a block that is followed by 16 others, of the first of 16 that nothing
// follows but the lengths, and of the lengths.
#define FULL    (POWERS + 0)
#define FIRST   (POWERS + 256)

DATA turn<>+0x00(SB)/8, $0x08090a0b0c0d0e0f
DATA turn<>+0x08(SB)/8, $0x0001020304050607
GLOBL turn<>(SB), RODATA|NOPTR, $16

// x^128 = x^7 + x^2 + x + 1, the other way round, without its highest.
DATA poly<>+0x00(SB)/8, $0x0000000000000001
DATA poly<>+0x08(SB)/8, $0xc200000000000000
GLOBL poly<>(SB), RODATA|NOPTR, $16

// What the counters of four blocks are beyond the counter before them.
DATA ahead<>+0x00(SB)/8, $1
DATA ahead<>+0x08(SB)/8, $0
DATA ahead<>+0x10(SB)/8, $2
DATA ahead<>+0x18(SB)/8, $0
DATA ahead<>+0x20(SB)/8, $3
DATA ahead<>+0x28(SB)/8, $0
DATA ahead<>+0x30(SB)/8, $4
DATA ahead<>+0x38(SB)/8, $0
GLOBL ahead<>(SB), RODATA|NOPTR, $64

DATA four<>+0x00(SB)/8, $4
DATA four<>+0x08(SB)/8, $0
GLOBL four<>(SB), RODATA|NOPTR, $16

// Registers: AX wide, SI source, DI destination, CX bytes that are left, R8 the last round key,
// Z0 to Z3 blocks, Z4 counters (bytes the other way round), Z5 four, Z6 turn, Z7 to Z9 the
// low, middle and high part of a sum of products, Z10, Z11 and Z15 anything, Z12 the hash so
// far (X12), Z13 poly, X14 the block that covers the tag.

#define ROUND1(at) \
	VBROADCASTI32X4 at(AX), Z15 \
	VAESENC Z15, Z0, Z0

#define ROUND4(at) \
	VBROADCASTI32X4 at(AX), Z15 \
	VAESENC Z15, Z0, Z0         \
	VAESENC Z15, Z1, Z1         \
	VAESENC Z15, Z2, Z2         \
	VAESENC Z15, Z3, Z3

#define COUNT(z) \
	VPSHUFB Z6, Z4, z \
	VPADDD  Z5, Z4, Z4

// ADD adds the products of z and powers to the sum.
#define ADD(z, powers) \
	VMOVDQU64  powers, Z15             \
	VPCLMULQDQ $0x00, Z15, z, Z10      \
	VPCLMULQDQ $0x11, Z15, z, Z11      \
	VPXORQ     Z10, Z7, Z7             \
	VPXORQ     Z11, Z9, Z9             \
	VPCLMULQDQ $0x01, Z15, z, Z10      \
	VPCLMULQDQ $0x10, Z15, z, Z11      \
	VPTERNLOGQ $0x96, Z11, Z10, Z8

// BEGIN is ADD to a sum of nothing.
#define BEGIN(z, powers) \
	VMOVDQU64  powers, Z15             \
	VPCLMULQDQ $0x00, Z15, z, Z7       \
	VPCLMULQDQ $0x11, Z15, z, Z9       \
	VPCLMULQDQ $0x01, Z15, z, Z8       \
	VPCLMULQDQ $0x10, Z15, z, Z11      \
	VPXORQ     Z11, Z8, Z8

// REDUCE makes X12 of the sum: by 64 bits twice, then all four together.
#define REDUCE \
	VPCLMULQDQ    $0x10, Z13, Z7, Z10  \
	VPSHUFD       $0x4e, Z7, Z7        \
	VPTERNLOGQ    $0x96, Z10, Z7, Z8   \
	VPCLMULQDQ    $0x10, Z13, Z8, Z10  \
	VPSHUFD       $0x4e, Z8, Z8        \
	VPTERNLOGQ    $0x96, Z10, Z8, Z9   \
	VEXTRACTI64X4 $1, Z9, Y10          \
	VPXOR         Y10, Y9, Y9          \
	VEXTRACTI128  $1, Y9, X10          \
	VPXOR         X10, X9, X12

// START loads what is in registers, covers the tag, and begins the hash with additional data.
#define START \
	MOVQ            w+0(FP), AX           \
	MOVQ            counter+8(FP), BX     \
	MOVQ            head+16(FP), DX       \
	MOVQ            dst+32(FP), DI        \
	MOVQ            src+40(FP), SI        \
	MOVQ            n+48(FP), CX          \
	MOVQ            LAST(AX), R8          \
	ADDQ            AX, R8                \
	VBROADCASTI32X4 turn<>(SB), Z6        \
	VBROADCASTI32X4 poly<>(SB), Z13       \
	VBROADCASTI32X4 four<>(SB), Z5        \
	VBROADCASTI32X4 (BX), Z4              \
	VMOVDQU         (BX), X14             \
	VPXOR           (AX), X14, X14        \
	VPSHUFB         Z6, Z4, Z4            \
	VPADDD          ahead<>(SB), Z4, Z4   \
	VMOVDQU         (DX), X12             \
	VPSHUFB         X6, X12, X12          \
	BEGIN(Z12, FIRST(AX))                 \
	REDUCE                                \
	LEAQ            16(AX), R9            \
cover: \
	VAESENC         (R9), X14, X14        \
	ADDQ            $16, R9               \
	CMPQ            R9, R8                \
	JB              cover                 \
	VAESENCLAST     (R8), X14, X14

// ENCRYPT4 makes 16 blocks of the key stream.
#define ENCRYPT4(short) \
	VBROADCASTI32X4 (AX), Z15 \
	COUNT(Z0)                 \
	COUNT(Z1)                 \
	COUNT(Z2)                 \
	COUNT(Z3)                 \
	VPXORQ Z15, Z0, Z0        \
	VPXORQ Z15, Z1, Z1        \
	VPXORQ Z15, Z2, Z2        \
	VPXORQ Z15, Z3, Z3        \
	ROUND4(16)                \
	ROUND4(32)                \
	ROUND4(48)                \
	ROUND4(64)                \
	ROUND4(80)                \
	ROUND4(96)                \
	ROUND4(112)               \
	ROUND4(128)               \
	ROUND4(144)               \
	CMPQ LAST(AX), $160       \
	JEQ  short                \
	ROUND4(160)               \
	ROUND4(176)               \
	ROUND4(192)               \
	ROUND4(208)               \
short: \
	VBROADCASTI32X4 (R8), Z15 \
	VAESENCLAST Z15, Z0, Z0   \
	VAESENCLAST Z15, Z1, Z1   \
	VAESENCLAST Z15, Z2, Z2   \
	VAESENCLAST Z15, Z3, Z3

// ENCRYPT1 makes 4 blocks of the key stream.
#define ENCRYPT1(short) \
	VBROADCASTI32X4 (AX), Z15 \
	COUNT(Z0)                 \
	VPXORQ Z15, Z0, Z0        \
	ROUND1(16)                \
	ROUND1(32)                \
	ROUND1(48)                \
	ROUND1(64)                \
	ROUND1(80)                \
	ROUND1(96)                \
	ROUND1(112)               \
	ROUND1(128)               \
	ROUND1(144)               \
	CMPQ LAST(AX), $160       \
	JEQ  short                \
	ROUND1(160)               \
	ROUND1(176)               \
	ROUND1(192)               \
	ROUND1(208)               \
short: \
	VBROADCASTI32X4 (R8), Z15 \
	VAESENCLAST Z15, Z0, Z0

// HASH4 adds 16 blocks of ciphertext, of Z0 to Z3, to the hash.
#define HASH4 \
	VPSHUFB Z6, Z0, Z0               \
	VPSHUFB Z6, Z1, Z1               \
	VPSHUFB Z6, Z2, Z2               \
	VPSHUFB Z6, Z3, Z3               \
	VPXORQ  Z12, Z0, Z0              \
	BEGIN(Z0, (FULL+16)(AX))         \
	ADD(Z1, (FULL+16+64)(AX))        \
	ADD(Z2, (FULL+16+128)(AX))       \
	ADD(Z3, (FULL+16+192)(AX))       \
	REDUCE

// REST finds the power of the first of the blocks that are left, in R9.
#define REST \
	VPXORQ Z7, Z7, Z7   \
	VPXORQ Z8, Z8, Z8   \
	VPXORQ Z9, Z9, Z9   \
	MOVQ   CX, R10      \
	ADDQ   $15, R10     \
	ANDQ   $~15, R10    \
	LEAQ   FIRST(AX), R9 \
	SUBQ   R10, R9

// MASK is K1 of the bytes of four blocks that are left: CX of them, where they are less than 64.
#define MASK \
	MOVQ    $-1, R10      \
	MOVQ    $64, R11      \
	CMPQ    CX, R11       \
	CMOVQLT CX, R11       \
	BZHIQ   R11, R10, R10 \
	KMOVQ   R10, K1

// HASH1 adds up to 4 blocks of Z0 to the sum.
#define HASH1 \
	VPSHUFB Z6, Z0, Z0    \
	VPXORQ  Z12, Z0, Z0   \
	VPXORQ  Z12, Z12, Z12 \
	ADD(Z0, (R9))

#define NEXT \
	ADDQ $64, SI \
	ADDQ $64, DI \
	ADDQ $64, R9 \
	SUBQ $64, CX

// END adds the lengths in bits, and covers the tag, whose place is in R9.
#define END \
	MOVQ    headLength+24(FP), R10    \
	MOVQ    n+48(FP), R11             \
	SHLQ    $3, R10                   \
	SHLQ    $3, R11                   \
	VMOVQ   R11, X0                   \
	VPINSRQ $1, R10, X0, X0           \
	VPXORQ  Z12, Z0, Z0               \
	ADD(Z0, FIRST(AX))                \
	REDUCE                            \
	VPSHUFB X6, X12, X12              \
	VPXOR   X14, X12, X12             \
	VMOVDQU X12, (R9)                 \
	KXORQ   K1, K1, K1                \
	KXORQ   K2, K2, K2                \
	VZEROALL

// func seal(w *wide, counter, head *[16]byte, headLength int, dst, src *byte, n int, last byte, tag *[16]byte)
TEXT ·seal(SB), NOSPLIT, $0-72
	START

	// Of 256 bytes or less the last one is not of the source.
	SUBQ $257, CX
	JB   rest

many:
	ENCRYPT4(short4)
	VPXORQ    (SI), Z0, Z0
	VPXORQ    64(SI), Z1, Z1
	VPXORQ    128(SI), Z2, Z2
	VPXORQ    192(SI), Z3, Z3
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z1, 64(DI)
	VMOVDQU64 Z2, 128(DI)
	VMOVDQU64 Z3, 192(DI)
	HASH4
	ADDQ      $256, SI
	ADDQ      $256, DI
	SUBQ      $256, CX
	JAE       many

rest:
	ADDQ    $257, CX
	REST
	MOVBLZX last+56(FP), R10
	VMOVD   R10, X2
	VPBROADCASTB X2, Z2

few:
	ENCRYPT1(short1)
	MASK
	KMOVQ      K1, K2
	CMPQ       CX, $64
	JA         whole
	KSHIFTRQ   $1, K1, K2

whole:
	VMOVDQU8.Z (SI), K2, Z1
	KXORQ      K1, K2, K2
	VMOVDQU8   Z2, K2, Z1
	VPXORQ     Z1, Z0, Z0
	VMOVDQU8.Z Z0, K1, Z0
	VMOVDQU8   Z0, K1, (DI)
	HASH1
	NEXT
	JA         few

	MOVQ tag+64(FP), R9
	END
	RET

// func open(w *wide, counter, head *[16]byte, headLength int, dst, src *byte, n int, tag *[16]byte)
TEXT ·open(SB), NOSPLIT, $0-64
	START

	SUBQ $256, CX
	JB   rest

many:
	ENCRYPT4(short4)
	// The blocks of the stream make the plaintext, those of the source the hash.
	VMOVDQU64 (SI), Z7
	VMOVDQU64 64(SI), Z8
	VMOVDQU64 128(SI), Z9
	VMOVDQU64 192(SI), Z10
	VPXORQ    Z7, Z0, Z0
	VPXORQ    Z8, Z1, Z1
	VPXORQ    Z9, Z2, Z2
	VPXORQ    Z10, Z3, Z3
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z1, 64(DI)
	VMOVDQU64 Z2, 128(DI)
	VMOVDQU64 Z3, 192(DI)
	VMOVDQA64 Z7, Z0
	VMOVDQA64 Z8, Z1
	VMOVDQA64 Z9, Z2
	VMOVDQA64 Z10, Z3
	HASH4
	ADDQ      $256, SI
	ADDQ      $256, DI
	SUBQ      $256, CX
	JAE       many

rest:
	ADDQ $256, CX
	REST
	TESTQ CX, CX
	JEQ   end

few:
	ENCRYPT1(short1)
	MASK
	VMOVDQU8.Z (SI), K1, Z1
	VPXORQ     Z1, Z0, Z0
	VMOVDQU8   Z0, K1, (DI)
	VMOVDQA64  Z1, Z0
	HASH1
	NEXT
	JA         few

end:
	MOVQ tag+56(FP), R9
	END
	RET

// func powers(w *wide)
TEXT ·powers(SB), NOSPLIT, $0-8
	MOVQ            w+0(FP), AX
	VBROADCASTI32X4 poly<>(SB), Z13
	VMOVDQU         FIRST(AX), X12
	VMOVDQU         X12, X14
	LEAQ            FIRST(AX), R9
	MOVQ            $16, CX

product:
	VPCLMULQDQ $0x00, X14, X12, X7
	VPCLMULQDQ $0x11, X14, X12, X9
	VPCLMULQDQ $0x01, X14, X12, X8
	VPCLMULQDQ $0x10, X14, X12, X11
	VPXOR      X11, X8, X8
	VPCLMULQDQ $0x10, X13, X7, X10
	VPSHUFD    $0x4e, X7, X7
	VPXOR      X10, X7, X7
	VPXOR      X7, X8, X8
	VPCLMULQDQ $0x10, X13, X8, X10
	VPSHUFD    $0x4e, X8, X8
	VPXOR      X10, X8, X8
	VPXOR      X8, X9, X12
	SUBQ       $16, R9
	VMOVDQU    X12, (R9)
	DECQ       CX
	JNE        product
	VZEROALL
	RET

// func subWord(word uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	// ShiftRows changes nothing where all columns are the same.
	MOVL         word+0(FP), R10
	VMOVD        R10, X0
	VPSHUFD      $0, X0, X0
	VPXOR        X1, X1, X1
	VAESENCLAST  X1, X0, X0
	VMOVD        X0, R10
	MOVL         R10, ret+8(FP)
	VZEROUPPER
	RET
