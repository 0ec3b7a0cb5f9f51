# Hauberk: one obvious command for each job. `make` alone lists them.
.DEFAULT_GOAL := help

GO        ?= go
BIN       ?= bin
VERSION   ?= 0.1.0-dev
# Functions begin on a line of the instruction cache: a request runs through more code than that holds.
LDFLAGS   := -s -w -funcalign 64 -X github.com/hauberk-mesh/hauberk/internal/version.Version=$(VERSION)
PROGRAMS  := hauberk hauberk-controlplane hauberk-sidecar
E2E_PKGS  := ./e2e/consultest ./e2e/contract ./e2e/connect ./e2e/files ./controlplane/compile ./controlplane/render ./controlplane/source/consul ./xds/bootstrap ./xds/ads ./identity/workloadapi ./e2e/hostsocket ./e2e/mesh ./e2e/memory ./e2e/conformance/smuggling ./e2e/conformance/paths ./e2e/conformance/floods ./e2e/conformance/h2spec ./e2e/conformance/grpc ./e2e/bench ./e2e/differential
FUZZTIME  ?= 60s
SEED      ?= 1000
PROFILED  := plain,mtls1,mtls2,mtls2-h2,h2-h1,grpc,grpc-stream,tcp-mtls2,connect,connect-tcp-mtls2

# Nothing of ours needs C, so that what one target compiles is there for the next; the race detector does.
export CGO_ENABLED := 0

.PHONY: help
help: ## list the commands
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the three programs, static, into bin/
	@mkdir -p $(BIN)
	@for p in $(PROGRAMS); do echo "build $$p"; $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/$$p ./cmd/$$p || exit 1; done

.PHONY: build-all
build-all: ## build for linux amd64 and arm64 into bin/linux-ARCH/
	@for a in amd64 arm64; do GOOS=linux GOARCH=$$a $(MAKE) --no-print-directory build BIN=$(BIN)/linux-$$a || exit 1; done

.PHONY: test
test: ## run the tests that need only Go and make
	$(GO) test -pgo=off -timeout 5m ./...

.PHONY: race
race: ## run the same tests with the race detector (needs a C compiler), some on one processor too
	CGO_ENABLED=1 $(GO) test -pgo=off -timeout 8m -race ./...
	GOMAXPROCS=1 CGO_ENABLED=1 $(GO) test -pgo=off -timeout 4m -count=1 -race ./sidecar/stream ./sidecar/http2 ./sidecar/listener

.PHONY: e2e
e2e: build ## run whole-system suites against the real Consul and Envoy (root)
	HAUBERK_BIN=$(abspath $(BIN)) $(GO) test -tags e2e -count=1 -p 1 -timeout 25m $(E2E_PKGS)

.PHONY: h2spec-peers
h2spec-peers: build ## h2spec against the sidecar, HAProxy, Envoy (ENVOY_BIN) and nginx with the same job: a table
	HAUBERK_BIN=$(abspath $(BIN)) $(GO) test -tags 'e2e peers' -count=1 -v -run TestPeers ./e2e/conformance/h2spec

.PHONY: demo
demo: build ## a mesh on loopback in one terminal; CONSUL=1 for a real Consul, DEMO_ONCE=1 for scripts
	@CONSUL=$(CONSUL) $(BIN)/hauberk demo

.PHONY: bench
bench: build bench-program ## CPU, latency and memory beside HAProxy, Envoy, nginx and ReverseProxy, in one run; JOBS=plain C=64 BENCH_TIME=2s, BENCH='-rounds 9 -json FILE'
	@HAUBERK_SIDECAR=$(abspath $(BIN))/hauberk-sidecar $(BIN)/bench $(if $(JOBS),-jobs $(JOBS)) $(if $(C),-c $(C)) $(if $(BENCH_TIME),-time $(BENCH_TIME)) $(BENCH)

.PHONY: bench-full
bench-full: build bench-program ## every job with every number of connections, body size, features on and off (an hour and a half)
	@HAUBERK_SIDECAR=$(abspath $(BIN))/hauberk-sidecar $(BIN)/bench -full $(if $(BENCH_TIME),-time $(BENCH_TIME)) $(BENCH)

.PHONY: profile
profile: build bench-program ## take the CPU profiles by which the sidecar is compiled (cmd/hauberk-sidecar/default.pgo), KEEP=1 beside those before; four minutes
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && cp $(BIN)/hauberk-sidecar $$dir && \
	HAUBERK_SIDECAR=$$dir/hauberk-sidecar $(BIN)/bench -profile $$dir -jobs $(PROFILED) -c 64 -rounds 1 -retries 0 -time 15s -open 50ms -without haproxy,envoy,nginx,reverseproxy && \
	$(GO) tool pprof -proto $(if $(KEEP),cmd/hauberk-sidecar/default.pgo) $$dir/*.pprof >$$dir/all && mv $$dir/all cmd/hauberk-sidecar/default.pgo

.PHONY: bench-program
bench-program:
	@$(GO) build -o $(BIN)/bench ./e2e/bench

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); if [ -n "$$out" ]; then echo "not gofmt-ed:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags e2e ./...
	$(GO) tool staticcheck ./...

.PHONY: fuzz
fuzz: ## fuzz every parser, FUZZTIME each
	@for f in $$(grep -rlE '^func Fuzz' --include='*_test.go' .); do \
	  for t in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' $$f); do \
	    echo "== $$f $$t"; $(GO) test ./$$(dirname $$f) -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) || exit 1; \
	  done; done

.PHONY: fuzz-envoy
fuzz-envoy: build ## random configurations, requests and updates beside a real Envoy, FUZZTIME, from SEED on
	HAUBERK_BIN=$(abspath $(BIN)) $(GO) test -tags e2e -count=1 -timeout 0 ./e2e/differential ./e2e/files -run '^TestRandom' -random.time $(FUZZTIME) -random.seed $(SEED)

.PHONY: fuzz-keep
fuzz-keep: ## keep of what fuzzing found up to 30 inputs a target, of every size up to 1 KB, in testdata/fuzz
	@found=$$($(GO) env GOCACHE)/fuzz/github.com/hauberk-mesh/hauberk; \
	for f in $$(grep -rlE '^func Fuzz' --include='*_test.go' .); do \
	  for t in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' $$f); do \
	    kept=$$(dirname $$f)/testdata/fuzz/$$t; [ -d $$found/$$(dirname $$f)/$$t ] || continue; mkdir -p $$kept; \
	    (cd $$found/$$(dirname $$f)/$$t && find . -type f -size -1025c -printf '%s %f\n') | sort -n | \
	      awk -v room=$$((30 - $$(ls $$kept | wc -l))) '{name[NR] = $$2} END {for (i = 1; i <= NR; i++) if (int(i * room / NR) > int((i - 1) * room / NR)) print name[i]}' | \
	      while read -r name; do cp $$found/$$(dirname $$f)/$$t/$$name $$kept/; done; \
	  done; done

.PHONY: mutate
mutate: ## take each defence of docs/security.md out in turn: its test must fail
	$(GO) test -tags mutate -count=1 -timeout 30m -run TestDefencesAreTested -v ./internal/house

.PHONY: generate
generate: ## regenerate code from .proto files (needs protoc)
	$(GO) generate ./...

.PHONY: presubmit
presubmit: lint test race ## what to run before sending a change

.PHONY: clean
clean: ## remove bin/
	rm -rf $(BIN)
