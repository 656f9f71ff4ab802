#!/bin/bash
# Makes target/venv-celery with what tests/celery/requirements.txt names, once for each version of that file.
set -eu
cd "$(dirname "$0")/../.."
venv=target/venv-celery
mkdir -p target
exec 9>"$venv.lock"
flock 9
cmp -s tests/celery/requirements.txt "$venv/installed" && exit 0
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/celery/requirements.txt
cp tests/celery/requirements.txt "$venv/installed"
