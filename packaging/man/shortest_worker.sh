#!/bin/sh
work() { printf 'asked for: %s\n' "$1"; } # what it prints goes to the journal and to taskd logs
while IFS= read -r line <&3; do
    case $line in
    '{"op":"hello",'*)
        printf '%s\n' '{"op":"ready","v":1}' '{"op":"resumed"}' >&3 ;;
    '{"op":"run",'*)
        run=${line#*'"run":"'} run=${run%%'"'*}
        if work "$line" 3>&-; then
            printf '{"op":"success","run":"%s"}\n' "$run" >&3
        else
            printf '{"op":"failure","run":"%s","type":"Exit","message":"it failed"}\n' "$run" >&3
        fi ;;
    esac
done
