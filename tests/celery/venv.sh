#!/bin/bash
# Makes target/venv-celery with what tests/celery/requirements.txt names, and target/venv-celery-5.2 with the oldest Celery
# whose clients are tried; once for each version of those files.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p target
make_venv() {
    local venv=$1 names=$2
    exec 9>"$venv.lock"
    flock 9
    cmp -s "$names" "$venv/installed" && return
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$names"
    cp "$names" "$venv/installed"
}
make_venv target/venv-celery tests/celery/requirements.txt
make_venv target/venv-celery-5.2 tests/celery/requirements-5.2.txt
