# Completion of fmtrain for bash: fmtrain completion bash >> ~/.bashrc
_fmtrain() {
    mapfile -t COMPREPLY < <("${1/#\~/$HOME}" completion --asked "${#2}" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
}
complete -o nospace -F _fmtrain fmtrain
