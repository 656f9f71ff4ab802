#!/bin/sh
# A resident worker for taskd in POSIX sh: it shows the whole child protocol, and needs no other program.
#
#     [pools.shell]
#     worker = ["/usr/share/doc/taskd/examples/worker.sh"]
#     [queues.shell]
#     pool = "shell"
#     [tasks."shell.*"]
#     queue = "shell"
#
# taskd's own lines begin with "op" and, where there is one, "run"; strings in them hold no bare quote. That is
# all the parsing there is: enough for names, numbers and simple words.

# The value of a field of $line: a string without escapes, or a number.
field() { v=${line#*\""$1"\":}; v=${v#\"}; printf %s "${v%%[\",\}]*}"; }
say() { printf '%s\n' "$1" >&3; }
fail() { say "{\"op\":\"failure\",\"run\":\"$run\",\"type\":\"$1\",\"message\":\"$2\",\"retry\":$3}"; }
succeed() { say "{\"op\":\"success\",\"run\":\"$run\",\"result\":$1}"; }

while IFS= read -r line <&3; do # the end of the file: finish and exit
    case $line in
    '{"op":"hello",'*) # a daemon is there; "resume":false: this one keeps no outcomes for the next daemon
        say '{"op":"ready","v":1,"capacity":1,"tasks":["shell.*"],"resume":false}'
        say '{"op":"resumed"}' ;;
    '{"op":"run",'*)
        run=$(field run) task=$(field task) args=${line#*\"args\":\[} args=${args%%\]*}
        say "{\"op\":\"started\",\"run\":\"$run\"}"
        case $task:$args in
        shell.add:*[!0-9,\"]*) fail TypeError 'whole numbers, please' false ;;
        shell.add:*) sum=0 IFS=,\"; for n in $args; do sum=$((sum + ${n:-0})); done; unset IFS; succeed "$sum" ;;
        shell.hello:\"*\") echo "greeting $args"; succeed "\"hello, ${args#\"}" ;;
        shell.steps:*) for n in 1 2 3; do
            say "{\"op\":\"progress\",\"run\":\"$run\",\"current\":$n,\"total\":3}"; sleep 1
        done; succeed null ;;
        *) fail UnknownTask "no task $task with such arguments" false ;;
        esac ;;
    esac # "cancel" comes while nothing is read here: a time limit ends this process; "settled" needs nothing
done
