"""Shell completion: ``layerstore completion SHELL`` prints the script, click answers the shell's questions."""

import os

import click
from click.shell_completion import BashComplete, add_completion_class, get_completion_class, split_arg_string

from layerstore.cli.output import print_json
from layerstore.cli.settings import Settings, command

PROGRAM = "layerstore"
"""The name of the program, as it is installed."""
COMPLETE_VARIABLE = "_LAYERSTORE_COMPLETE"
"""Set by the script when it asks."""


class BashCompletion(BashComplete):
    """click's, but for colons: bash breaks words at them, and tags and digests have one.

    So the whole line is handed over instead of bash's words, and what stands before the last colon is taken off the
    answers, because bash would insert it a second time.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' completion type value word line="${COMP_LINE:0:COMP_POINT}"
    word="${line##*[[:space:]]}"
    [[ $COMP_WORDBREAKS == *:* ]] || word=""
    COMPREPLY=()
    for completion in $(COMP_LINE="$line" %(complete_var)s=bash_complete "$1"); do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"${word%%"${word##*:}"}"}") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one at the cursor, and this one."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        if line[-1:].isspace() or not words:
            return words, ""
        return words[:-1], words[-1]


add_completion_class(BashCompletion)


@command(
    "completion",
    json_form="An object: shell, script.",
    examples="""
        eval "$(layerstore completion bash)"
        eval "$(layerstore completion zsh)"
        layerstore completion fish > ~/.config/fish/completions/layerstore.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, settings: Settings, shell: str) -> None:
    """Print the completion script for a shell.

    It completes commands, options, and the tags and digests of the store.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click completes for these three"
    script = kind(context.find_root().command, {}, PROGRAM, COMPLETE_VARIABLE).source()
    if settings.json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
