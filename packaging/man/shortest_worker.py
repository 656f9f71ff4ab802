#!/usr/bin/env python3
import json, os, socket

taskd = socket.socket(fileno=int(os.environ["TASKD_FD"])).makefile("rw", encoding="utf-8")

def say(**line):
    print(json.dumps(line), file=taskd, flush=True)

for text in taskd:
    try:
        line = json.loads(text)
    except ValueError:  # an empty line, or one that was torn
        continue
    if line["op"] == "hello":
        say(op="ready", v=1)
        say(op="resumed")
    elif line["op"] == "run":
        try:
            say(op="success", run=line["run"], result=sum(line["args"]))
        except Exception as error:
            say(op="failure", run=line["run"], type=type(error).__name__, message=str(error))
