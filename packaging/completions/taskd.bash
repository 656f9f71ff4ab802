# Completion of taskd for bash; `taskd completion bash` prints it. It knows nothing itself: the installed
# program is asked at each call, so this file fits every version of it. Needs nothing of bash-completion.
_taskd() {
    COMPREPLY=()
    # The program of the PATH, not the word that was typed: a key press must not start ./taskd of anybody.
    local answer
    answer=$(command taskd @complete bash "$COMP_TYPE" "$COMP_WORDBREAKS" "${COMP_LINE:0:COMP_POINT}" \
        2>/dev/null </dev/null) || return 0
    case $answer in
    '') ;;
    :files) compopt +o nospace -o default 2>/dev/null ;;
    :directories) compopt +o nospace -o dirnames 2>/dev/null ;;
    # Each line is quoted as it must be, with the space that is to follow it.
    *) mapfile -t COMPREPLY <<<"$answer" ;;
    esac
    return 0
}
complete -o nosort -o nospace -F _taskd taskd 2>/dev/null || complete -o nospace -F _taskd taskd
