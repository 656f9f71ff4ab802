#!/bin/bash
# Installs the peers that figures are measured beside into target/bench/peers: Celery with its Redis client, and BullMQ.
# Prints nothing when they are there. Exit code 1 where they are not to be had.
set -eu
cd "$(dirname "$0")/../.."
home=target/bench/peers
mkdir -p "$home"
if ! "$home/venv/bin/python" -c 'import celery, redis; assert celery.__version__ == "5.7.0"' 2>/dev/null; then
    python3 -m venv "$home/venv"
    "$home/venv/bin/pip" install --quiet --disable-pip-version-check 'celery[redis]==5.7.0'
fi
if [ ! -d "$home/node_modules/ioredis" ]; then
    npm install --silent --no-audit --no-fund --prefix "$home" bullmq@6 ioredis@5 >/dev/null
fi
