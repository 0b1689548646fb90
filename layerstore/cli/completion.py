"""Shell completion: ``layerstore completion SHELL`` prints the script, click answers the shell's questions."""

import click
from click.shell_completion import get_completion_class

from layerstore.cli.output import print_json
from layerstore.cli.settings import Settings, command

PROGRAM = "layerstore"
"""The name of the program, as it is installed."""
COMPLETE_VARIABLE = "_LAYERSTORE_COMPLETE"
"""Set by the script when it asks."""


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
