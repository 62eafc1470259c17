"""`dupmae index ...` and `dupmae evaluate`: the commands in the order of their help, with an example for each.

Commands raise what the packages raise; `service.cli.main` turns it into one line and an exit code.
"""

import typer

from indexer.commands.backup import backup, restore
from indexer.commands.build import build
from indexer.commands.builds import delete, list_builds, reconcile
from indexer.commands.estimate import estimate
from indexer.commands.evaluate import evaluate
from indexer.commands.mine import mine
from indexer.commands.publish import publish, rollback, verify

__all__ = ["app", "evaluate", "evaluation"]

app = typer.Typer(help="Build, publish and remove indexes.", no_args_is_help=True, add_completion=False)

BUILD_EXAMPLES = """Example: dupmae index build articles.jsonl.gz --field metadata.lang=keyword

A table: dupmae index build articles.csv.zst --map id=url --map text=abstract,body

A folder of notes: dupmae index build handbook/

A folder of tables: dupmae index build shards/ --format parquet

Another program: export-wiki | dupmae index build - --format csv"""

app.command(epilog=BUILD_EXAMPLES)(build)
app.command(epilog="Example: dupmae index estimate articles.jsonl.gz --workers 4")(estimate)
app.command("list", epilog="Example: dupmae index list --json")(list_builds)
app.command(epilog="Example: dupmae index reconcile 20260102-030405-abc123 --mend")(reconcile)
app.command(epilog="Example: dupmae index publish 20260102-030405-abc123")(publish)
app.command(epilog="Example: dupmae index verify --index notes")(verify)
app.command(epilog="Example: dupmae index rollback --index default")(rollback)
app.command(epilog="Example: dupmae index delete 20260102-030405-abc123")(delete)
app.command(epilog="Example: dupmae index backup notes-2026-01-02.tar.zst --index notes")(backup)
app.command(epilog="Example: dupmae index restore notes-2026-01-02.tar.zst --index notes-again --no-publish")(restore)
app.command(epilog="Example: dupmae index mine beir/scifact train.jsonl --split train --ranks 10:100 --margin 5%")(mine)

evaluation = typer.Typer(add_completion=False)
evaluation.command(epilog="Example: dupmae evaluate beir/scifact --json scifact.json")(evaluate)
