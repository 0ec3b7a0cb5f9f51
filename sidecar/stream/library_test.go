package stream

import (
	"testing"
)

// TestLibrary: over the records of crypto/tls everything is as over our own.
func TestLibrary(t *testing.T) {
	byLibrary(t)
	for name, test := range map[string]func(*testing.T){
		"reset while writing": TestResetWhileWriting, "led reader": TestLedReader, "led reader ends": TestLedReaderEnds,
		"leader leaves the rest": TestLeaderLeavesTheRest, "bulk of a leader": TestBulkOfALeader, "fault of a led": TestFaultOfALed,
		"close of a led": TestCloseOfALed, "read each": TestReadEach, "the end": TestReadEachFindsTheEnd,
		"nothing in vain": TestReadEachReadsNothingInVain, "each record": TestReadEachFindsEachRecord,
		"exchange": TestTLSExchange, "leftover": TestTLSExchangeLeftover, "exchange ends": TestTLSExchangeEnds,
		"writes gather": TestWriteGathers, "writes of all sizes": TestWritesOfAllSizes, "deadline": TestDeadlineWhileGathering,
		"reset while gathering": TestResetWhileGathering, "what left": TestFailedWriteTellsWhatLeft, "kept": TestKeptIsBounded,
		"ready": TestTLSReadReady, "each wait": TestTLSReadReadyTellsOfEachWait,
		"try": TestTryWrite, "the last record": TestTryWriteKeepsTheLastRecord, "together": TestTLSReadReadyTogether,
		"quiet": TestTLSQuiet, "close now": TestCloseNow, "quiet of a peer that does not read": TestQuietOfAPeerThatDoesNotRead,
		"quiet of a peer that has ended": TestQuietOfAPeerThatHasEnded,
	} {
		t.Run(name, test)
	}
}

// TestUntouched: the library's numbers of records are where they are looked for. If this fails
// with another Go, connections stay with crypto/tls: see findBuffers.
func TestUntouched(t *testing.T) {
	byLibrary(t)
	server, client := tlsPair(t)
	if !untouched(server.tls) || !untouched(client.tls) {
		t.Fatal("nothing was written, and it is not seen")
	}
	if _, err := server.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if untouched(server.tls) {
		t.Error("a record was written, and it is not seen")
	}
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if untouched(client.tls) {
		t.Error("a record was read, and it is not seen")
	}
}
