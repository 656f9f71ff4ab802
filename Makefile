# `make run` to see it work, `make test` to prove it. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec

CARGO ?= cargo
TASKD := target/release/taskd
QUICK := target/quickstart
REDIS := redis_noop redis_latency redis_backlog redis_restart celery_app
FIGURES := exec_true enqueue_cli enqueue_concurrent latency backlog idle \
	resident recycle sleepers cron chord limits $(REDIS)

.PHONY: help run test test-boot test-qemu check package deb reproducible soak bench bench-boot bench-chord bench-cron bench-limits bench-redis bench-schedules clean

help:
	@echo 'make run    build taskd and start it with config/quickstart.toml (Ctrl-C stops it)'
	@echo 'make test   everything that must hold: format, lints, all tests'
	@echo 'make check  format, lints, and the dependency checks whose tools are installed'
	@echo 'make test-boot  the package in booted systems alone (a part of make test, where it may: as root)'
	@echo 'make test-qemu  the same in an emulated machine with the stock kernel, before a release'
	@echo 'make deb    the Debian packages, in target/deb (a slow build: the whole program is optimized at once)'
	@echo 'make soak   the long form of the fault tests: 300 kill cycles, 100 daemon crashes, a million simulated lives and messages, 50,000 messages over killed nodes'
	@echo 'make bench  every figure beside its baseline, with a verdict (target/bench/*.json)'
	@echo 'make clean  remove what was built'

# The launcher replaces the recipe's shell, so that Ctrl-C reaches it and its exit code is make's. The
# greeting waits beside it for an answer on the socket, and gives up when taskd is gone.
run:
	@$(CARGO) build --release
	@mkdir -p $(QUICK)
	@export TASKD_SOCKET=$(QUICK)/taskd.sock; \
	( until $(TASKD) status >/dev/null 2>&1; do kill -0 $$$$ 2>/dev/null || exit 0; sleep 0.2; done; \
	  echo "taskd runs. In a second terminal, in this directory:"; \
	  echo "    export TASKD_SOCKET=$$PWD/$(QUICK)/taskd.sock PATH=$$PWD/target/release:\$$PATH"; \
	  echo "    taskd enqueue hello --wait      then: taskd list, taskd status, taskd --help"; \
	  $(TASKD) enqueue hello >/dev/null ) & \
	exec $(TASKD) run --config config/quickstart.toml --state-dir $(QUICK)/state --socket $(QUICK)/taskd.sock

test:
	@bash tests/needs.sh test
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	@mkdir -p target
	$(CARGO) test --no-fail-fast 2>&1 | tee target/test.log || failed=1; \
	$(CARGO) test --profile sim --test sim 2>&1 | tee -a target/test.log || failed=1; \
	bash tests/uml/prove.sh 2>&1 | tee -a target/test.log || failed=1; \
	bash tests/booted.sh 2>&1 | tee -a target/test.log || failed=1; \
	echo; echo '--- what ran'; \
	grep -E '^ +(Running|Doc-tests)|^test result:|^test .* FAILED|^(ok|FAILED) |^package: | (nspawn|uml) .* s  |scenarios, ' target/test.log || true; \
	exit $${failed:-0}

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	@if command -v shellcheck >/dev/null; then shellcheck -x -S warning packaging/*.sh packaging/debian/tests/smoke tests/*.sh tests/uml/*.sh tests/systemd/*.sh; else echo 'shellcheck is not installed: scripts not looked at'; fi
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check; else echo 'cargo-deny is not installed: licenses, bans and advisories not checked'; fi
	@if command -v cargo-machete >/dev/null; then cargo-machete; else echo 'cargo-machete is not installed: unused dependencies not looked for'; fi

test-boot:
	@bash tests/booted.sh

test-qemu: package
	@bash tests/needs.sh boot
	@tests/systemd/prove.sh qemu

# The package as `make test` leaves it.
package:
	@[ -e target/package/taskd_*.deb ] || bash tests/package.sh

deb:
	@packaging/deb.sh

# Two whole builds, in directories of other names: the packages must have the same bytes.
reproducible:
	@packaging/reproducible.sh

soak:
	@bash tests/needs.sh test
	CYCLES=$${CYCLES:-300} $(CARGO) test --test it -- kill:: --nocapture
	CRASHES=$${CRASHES:-100} $(CARGO) test --test it -- crashes:: --nocapture
	ATTEMPTS=$${ATTEMPTS:-200} $(CARGO) test --test runner -- bounds:: --nocapture
	RUNS=$${RUNS:-1000000} $(CARGO) test --profile sim --test sim -- --nocapture
	MESSAGES=$${MESSAGES:-1000000} $(CARGO) test --test it -- resident::many_messages --nocapture
	MESSAGES=$${NODE_MESSAGES:-50000} $(CARGO) test --test celery -- nodes::nothing_is_lost --nocapture

bench:
	@bash tests/needs.sh bench
	$(CARGO) build --release --bins --benches --examples
	@for figure in $(FIGURES); do $(CARGO) bench --quiet --bench $$figure || echo "$$figure ended with $$?"; done; \
	$(CARGO) bench --quiet --bench table
	@$(MAKE) --no-print-directory bench-boot

# The figures of schedules alone: some eight minutes.
bench-schedules:
	@bash tests/needs.sh bench
	$(CARGO) build --release --bins --benches
	$(CARGO) bench --quiet --bench schedules

# Planned times beside Debian's cron and croner, around changes of the clocks; a part of `make bench`.
bench-cron:
	$(CARGO) bench --quiet --bench cron

bench-chord:
	$(CARGO) build --release --bins --benches --examples
	$(CARGO) bench --quiet --bench chord

# Alone: what limits that never bind cost.
bench-limits:
	@bash tests/needs.sh bench
	$(CARGO) build --release --bins
	$(CARGO) bench --quiet --bench limits

# What taskd does on Redis, beside Celery, BullMQ and bare clients: some twenty minutes.
bench-redis:
	@bash tests/needs.sh bench
	$(CARGO) build --release --bins --benches --examples
	@for figure in $(REDIS); do $(CARGO) bench --quiet --bench $$figure || echo "$$figure ended with $$?"; done

# Figures of the installed package, in a container.
bench-boot: package
	@bash tests/needs.sh boot
	@tests/systemd/boot.sh --quiet --deb target/package/taskd_*_*.deb --file tests/systemd/prologue.sh --script benches/booted.sh

clean:
	$(CARGO) clean
