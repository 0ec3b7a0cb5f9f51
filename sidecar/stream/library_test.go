package stream

import (
	"crypto/tls"
	"testing"
)

// TestLibrary: over the records of crypto/tls everything is as over our own.
func TestLibrary(t *testing.T) {
	tlsVersion = tls.VersionTLS12
	defer func() { tlsVersion = tls.VersionTLS13 }()
	for name, test := range map[string]func(*testing.T){
		"reset while writing": TestResetWhileWriting, "led reader": TestLedReader, "led reader ends": TestLedReaderEnds,
		"leader leaves the rest": TestLeaderLeavesTheRest, "bulk of a leader": TestBulkOfALeader, "fault of a led": TestFaultOfALed,
		"close of a led": TestCloseOfALed, "read each": TestReadEach, "the end": TestReadEachFindsTheEnd,
		"nothing in vain": TestReadEachReadsNothingInVain, "each record": TestReadEachFindsEachRecord,
		"exchange": TestTLSExchange, "leftover": TestTLSExchangeLeftover, "exchange ends": TestTLSExchangeEnds,
		"writes gather": TestWriteGathers, "writes of all sizes": TestWritesOfAllSizes, "deadline": TestDeadlineWhileGathering,
		"reset while gathering": TestResetWhileGathering, "what left": TestFailedWriteTellsWhatLeft, "kept": TestKeptIsBounded,
		"ready": TestTLSReadReady, "each wait": TestTLSReadReadyTellsOfEachWait,
		"try": TestTryWrite, "the last record": TestTryWriteKeepsTheLastRecord,
	} {
		t.Run(name, test)
	}
}
