# make demo, make test and make build each install what they need, on Debian 12
# and 13, as root.

GO      ?= go
LINT_VERSION := v2.15.0
LINT    := bin/golangci-lint-$(LINT_VERSION)

# go-ceph calls what its newest Ceph has; an older one is named by a tag. librbd's
# header tells which is installed: 1.16 is Ceph 16 (Debian 12), 1.19 is Ceph 18.
TAGS = $(shell awk '/define LIBRBD_VER_MINOR/ { if ($$3 <= 16) print "pacific"; else if ($$3 <= 18) print "quincy" }' \
	/usr/include/rbd/librbd.h 2>/dev/null)
VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# The version is in -ldflags; asking git for more fails where it distrusts the owner.
export GOFLAGS = -buildvcs=false -tags=$(TAGS)

BUILD_PACKAGES := g++ libc6-dev pkg-config librbd-dev librados-dev libradospp-dev libvirt-dev
LAB_PACKAGES   := ceph-mon ceph-mgr ceph-osd ceph-common libvirt-daemon-system libvirt-clients \
	qemu-system-x86 qemu-block-extra qemu-utils busybox-static syslinux syslinux-common \
	mtools dosfstools fdisk cpio e2fsprogs kmod iproute2 gcc libc6-dev
TEST_PACKAGES  := genisoimage libxml2-utils python3-cinder python3-glance-store python3-rados \
	python3-rbd util-linux
BENCH_PACKAGES := jq python3-glance-store python3-nova

.PHONY: build demo test soak bench bench-compare microbench lint clean packages-build packages-lab packages-test packages-bench

build: packages-build
	$(GO) build -ldflags '-X main.version=$(VERSION)' -o bin/vmdisk ./cmd/vmdisk

demo: build packages-lab
	bin/vmdisk lab demo

# The tests of all packages, on LABS labs side by side; each has a lab to itself, for
# it looks at the whole of it for what it left behind. bin/labtest -run REGEXP . runs
# some of them.
LABS ?= 3
test: build packages-lab packages-test lint
	$(GO) build -o bin/labtest ./internal/labtest
	bin/labtest -labs $(LABS) -hosts 3 ./...

# make soak TIME=1h MOVES=100: random workflows, some killed at a random moment, for so
# long; and so many live migrations of one guest.
TIME  ?= 10m
MOVES ?= 100
soak: build packages-lab
	bin/vmdisk lab run --hurried -- $(GO) test -count=1 -v -run 'TestSoak|TestMigrateManyTimes' -timeout 0 . \
		-soak $(TIME) -soak.moves $(MOVES)

# vmdisk beside what a user would pick instead, on a lab of its own: the table on the
# terminal, and docs/BENCHMARKS.md, its plots and docs/bench.json. About ten minutes on
# an idle machine. RUN=REGEXP measures some of it and writes nothing.
RUN ?=
bench: build packages-lab packages-bench
	$(GO) build -o bin/bench ./internal/bench
	bin/bench $(if $(RUN),-run '$(RUN)',-out docs)

# make bench-compare OLD NEW: two bench.json, as bench writes them.
ifeq (bench-compare,$(firstword $(MAKECMDGOALS)))
COMPARED := $(wordlist 2,3,$(MAKECMDGOALS))
$(COMPARED): ;
.PHONY: $(COMPARED)
endif
bench-compare: packages-build
	$(GO) build -o bin/bench ./internal/bench
	bin/bench -compare $(COMPARED)

# The benchmarks that are Go's: parts of vmdisk, and migration beside virsh.
microbench: build packages-lab
	bin/vmdisk lab run -- $(GO) test -run '^$$' -bench . -benchtime 10x -p 1 -timeout 60m ./...

lint: packages-build $(LINT)
	test -z "$$(gofmt -l .)"
	$(GO) vet ./...
	$(LINT) run ./...

$(LINT):
	GOFLAGS= GOBIN=$(CURDIR)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv bin/golangci-lint $@

# install PACKAGE... unless all are there, so that a second run asks nobody.
install = dpkg-query -W -f '$${db:Status-Abbrev}\n' $(1) 2>/dev/null | grep -c '^ii' | grep -qx $(words $(1)) || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1); }

packages-build:
	@$(call install,$(BUILD_PACKAGES))
packages-lab:
	@$(call install,$(LAB_PACKAGES))
packages-test:
	@$(call install,$(TEST_PACKAGES))
packages-bench:
	@$(call install,$(BENCH_PACKAGES))

clean:
	rm -rf bin
