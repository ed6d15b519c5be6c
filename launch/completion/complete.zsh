# Completion of fmtrain for zsh, behind compinit: fmtrain completion zsh >> ~/.zshrc
_fmtrain() {
    local -a found
    found=(${(f)"$("${words[1]/#\~/$HOME}" completion --asked ${#PREFIX} "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)"})
    (( $#found )) && compadd -Q -S '' -a found
}
compdef _fmtrain fmtrain
