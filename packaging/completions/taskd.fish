# Completion of taskd for fish; `taskd completion fish` prints it. It knows nothing itself: the installed
# program is asked at each call, so this file fits every version of it.
function __taskd_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    # The program of the PATH, not the word that was typed: a key press must not start ./taskd of anybody.
    set -l said (command taskd @complete fish $before "$current" 2>/dev/null </dev/null)
    # Paths may stand behind `--option=` or `name=`.
    set -l option (string match -r '^[^=]*=' -- "$current")
    set -l path (string replace -r '^[^=]*=' '' -- "$current")
    switch "$said[1]"
        case ''
        case :files
            printf '%s\n' "$option"(__fish_complete_path "$path")
        case :directories
            printf '%s\n' "$option"(__fish_complete_directories "$path")
        case '*'
            printf '%s\n' $said
    end
end
complete -c taskd -f -k -a '(__taskd_complete)'
