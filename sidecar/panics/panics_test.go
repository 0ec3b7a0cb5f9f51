package panics

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

type thing string

func (t thing) LogValue() slog.Value { return slog.StringValue(string(t)) }

func logged(t *testing.T) *bytes.Buffer {
	var b bytes.Buffer
	LogTo(slog.New(slog.NewTextHandler(&b, nil)))
	t.Cleanup(func() { LogTo(nil) })
	return &b
}

func TestContain(t *testing.T) {
	log := logged(t)
	before, ended := Count(Relay), false
	func() {
		defer Contain(Relay, thing("the connection"), func() { ended = true })
		panic("out of order")
	}()
	if Count(Relay) != before+1 || !ended {
		t.Errorf("counted %d, ended %v", Count(Relay)-before, ended)
	}
	for _, want := range []string{"place=relay", "out of order", "the connection", "TestContain"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	var got float64
	Collect(func(v float64, labels ...string) {
		if labels[0] == "relay" {
			got = v
		}
	})
	if uint64(got) != before+1 {
		t.Errorf("collected %v", got)
	}
}

// What ends the rest may meet what the panic left.
func TestContainWhatEndsTheRest(t *testing.T) {
	log := logged(t)
	before := Count(Dial)
	func() {
		defer Contain(Dial, nil, func() { panic("twice") })
		panic("once")
	}()
	if Count(Dial) != before+2 || !strings.Contains(log.String(), "once") || !strings.Contains(log.String(), "twice") {
		t.Errorf("counted %d, logged:\n%s", Count(Dial)-before, log)
	}
}

func TestGuardedRoundsGoOn(t *testing.T) {
	logged(t)
	rounds := 0
	for range 3 {
		Guard(Housekeeper, func() { rounds++; panic("a round") })
	}
	if rounds != 3 {
		t.Errorf("%d rounds", rounds)
	}
}

func TestContainAllocatesNothing(t *testing.T) {
	of := new(owner)
	if n := testing.AllocsPerRun(100, of.work); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

type owner struct{ ended int }

func (o *owner) LogValue() slog.Value { return slog.IntValue(o.ended) }
func (o *owner) end()                 { o.ended++ }
func (o *owner) work()                { defer Contain(Exchange, o, o.end) }
