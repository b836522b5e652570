# Every target does the set-up that it needs and says what it does. The logic lives in scripts/ and the crates.
.DEFAULT_GOAL := help
.PHONY: help setup kernel image build run test bench fuzz check clean
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what the other targets need: Debian packages, the musl target, vhost-device-vsock
	@scripts/setup

kernel: setup ## build the guest kernel into target/guest (cached outside of the tree)
	@kernel/build

image: setup ## build init, the guest images and the busybox image into target/guest
	@scripts/image

build: setup ## build hyperctl and image-builder into target/release
	@scripts/build

run: kernel image build ## run the first container: busybox says helloworld from a VM of its own
	target/release/hyperctl run -t busybox echo helloworld

test: kernel image build ## run the tests that boot VMs
	@scripts/test

bench: kernel image build ## measure sizes, guest instructions and times against their budgets
	@scripts/bench

fuzz: setup ## feed broken layers to the importer for two minutes
	@scripts/fuzz

check: setup ## format, lints, unit tests, layering, docs, licences: all that needs no VM
	@scripts/check

clean: ## remove what the targets built in the tree; the caches outside of it stay
	cargo clean
