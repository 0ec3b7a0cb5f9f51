package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// survive has the process outlive what ends one by default: the reader of its output
// going away (SIGPIPE; a write fails then, and is counted), its terminal, and a request to
// reopen logs that comes before there are any. It is called first.
func survive() { signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGUSR1) }

// signals gives a context that ends at the first signal to stop. The second one calls
// quit. SIGUSR1, at any time, calls reopen; SIGHUP does nothing but say so, as in Envoy.
func signals(quit, reopen func(), log *slog.Logger) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		for stopping := false; ; {
			select {
			case s := <-c:
				switch {
				case s == syscall.SIGUSR1:
					reopen()
				case s == syscall.SIGHUP:
					log.Info("SIGHUP does nothing: configuration and certificates are taken when they change; SIGUSR1 opens the access logs anew")
				case stopping:
					quit()
					return
				default:
					stopping = true
					cancel()
				}
			case <-done:
				return
			}
		}
	}()
	var once bool
	return ctx, func() {
		cancel()
		if !once {
			once = true
			signal.Stop(c)
			survive()
			close(done)
		}
	}
}
