# Tideline's verbs. CI runs the same ones. Every target is explained by the comment behind it; `make help` shows them.

SHELL := /bin/sh
.DEFAULT_GOAL := help

page_sources := $(shell find web -name node_modules -prune -o -name dist -prune -o -type f -print 2>/dev/null)

.PHONY: help run dev check test faults soak templates lint setup page bench functions bench-functions replay deploy doctor cost verify destroy purge clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: node/page/dist/index.html ## run all of Tideline on this machine, at http://localhost:8080
	@go build -o bin/ ./local && exec bin/local

dev: ## the same, with a page that reloads as you type
	@scripts/npm-ci web
	@go build -o bin/ ./local && exec bin/local -dev

check: lint ## the fast part of the tests: lint, unit tests, one end-to-end test; under 3 minutes
	@scripts/npm-ci test
	go test -short $$(go list ./... | grep -v /test/)
	go test -short ./test/rules ./test/e2e

test: setup node/page/dist/index.html ## all tests: unit, integration, end to end, browser; under 20 minutes
	npm --prefix web test
	go test -race -shuffle=on -timeout 15m $$(go list ./... | grep -v -e /cdk -e /test/faults)
	go test -count=1 -timeout 10m ./test/faults # alone, and without the race detector: it counts what a second brings
	@scripts/test-templates.sh # with cdk's Go tests: the CDK's own runtime has races

faults: ## break Redis, nodes and sockets under load, and count what was lost: about three minutes
	go test ./test/faults -count=1 -v

soak: ## the same with the long durations of the promises: about fifteen minutes
	FAULTS_LONG=1 go test ./test/faults -count=1 -v -timeout 40m

templates: ## the CloudFormation templates alone: their properties, cfn-lint, the AwsSolutions rules
	@scripts/test-templates.sh

fuzz: ## every fuzz target for FUZZTIME (30s) each
	@scripts/fuzz

lint: ## formatting, go vet, staticcheck, and the page's own linter
	@scripts/lint

setup: ## install what the tests need, or say what to install
	@scripts/setup

page: ## build the page into node/page/dist
	@scripts/page

node/page/dist/index.html: $(page_sources)
	@scripts/page

bench: ## measure nodes beside other servers, on two cores: under 20 minutes; nothing else should run meanwhile
	@go build -o bin/ ./test/load && bin/load -pin -rounds 3 -write docs/benchmarks.md

functions: ## build the Lambda functions into dist/
	@scripts/functions.sh

bench-functions: ## cold start and size of the Lambda functions
	@scripts/bench-functions.sh

replay: ## announce again what the outbox had to give up (AWS; STAGE=dev)
	@scripts/replay.sh

deploy: ## put STAGE=dev into your AWS account; settings by ARGS="-c name=value …", see docs/deployment.md
	@STAGE='$(STAGE)' scripts/deploy.sh $(ARGS)

doctor: ## what would keep a deployment of STAGE=dev from succeeding
	@STAGE='$(STAGE)' scripts/doctor.sh $(ARGS)

cost: ## a month of STAGE=dev at CONNECTIONS=10000 and RATE=1 message a minute to each, beside managed services; SIZE=500 bytes, FANOUT=10 hear one, PER_NODE= connections (default: as measured)
	@go run ./cdk/operate cost -c stage='$(or $(STAGE),dev)' -c connections='$(CONNECTIONS)' -c rate='$(RATE)' -c size='$(SIZE)' -c fanout='$(FANOUT)' -c perNode='$(PER_NODE)' $(ARGS)

verify: ## whether URL=http://localhost:8080, or the deployed STAGE=dev, does what it should
	@STAGE='$(STAGE)' scripts/verify.sh $(URL)

destroy: ## say what destroying STAGE= would mean; with CONFIRM=<stage> do it
	@go run ./cdk/operate destroy -c stage='$(STAGE)' --confirm='$(CONFIRM)'

purge: ## list what a destroyed STAGE= has left; with CONFIRM=<stage> delete it, data included
	@go run ./cdk/operate purge -c stage='$(STAGE)' --confirm='$(CONFIRM)'

clean: ## remove what was built; todos and secrets in .tideline stay
	rm -rf bin dist cdk.out test/artifacts
	find node/page/dist -mindepth 1 ! -name .gitkeep -delete
