"""What a real server keeps of a stage's lines, and that one which refuses stops nothing."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from flows.in_prefect import run_table
from storage.artifact import Artifact
from storage.manifest import Recipe

SCRIPT = """
import json, sys
from pathlib import Path
from flows.server import prefect_server

with prefect_server(Path(sys.argv[1])):
    from prefect import flow
    from prefect.client.orchestration import get_client
    from flows.in_prefect import Progress

    def kept():
        with get_client(sync_client=True) as client:
            return [(a.key, a.data, a.description) for a in client.read_artifacts() if a.type == "progress"]

    seen = []

    @flow
    def run():
        progress, silent = Progress("depth"), Progress("teacher")
        for line in ("depth: begins", "depth: 1/4 samples, 2/s, 9 s to go", "depth: 3/4 samples, 2/s, 3 s to go"):
            progress(line)
            seen.append(kept())
        progress.end()
        silent.end()
        seen.append(kept())
        refused = Progress("No Name")  # which the server does not take
        for done in (1, 2):
            refused(f"No Name: {done}/4 samples, ")

    run()
print(json.dumps(seen))
"""


def test_a_stages_lines_become_its_progress(tmp_path):
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "home")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    nothing, quarter, three_quarters, whole = json.loads(done.stdout.splitlines()[-1])
    assert nothing == []
    assert quarter == [["depth-progress", 25.0, "depth: 1/4 samples, 2/s, 9 s to go"]]
    assert three_quarters[0][:2] == ["depth-progress", 75.0]
    assert whole == [["depth-progress", 100.0, "depth: done"]]
    assert done.stderr.count("No Name goes on, but its progress cannot be shown") == 1


def test_a_runs_table_marks_what_was_cached_and_what_failed(tmp_path):
    recipe = Recipe(stage="evaluate", version=1, config={}, inputs={})
    artifact = Artifact(tmp_path, "evaluate", recipe.key)
    artifact.begin(recipe)
    artifact.finish(recipe, {"mAP": 0.25, "NDS": 0.5}, 3.0, {})
    missing = Artifact(tmp_path, "depth", "0" * 64)

    def planned(name, state, artifact):
        return SimpleNamespace(name=name, state=state, ready=lambda: SimpleNamespace(artifact=artifact))

    plan = [planned("evaluate", "cached", artifact), planned("depth", "run", missing)]
    states = {"evaluate": SimpleNamespace(name="Completed"), "depth": SimpleNamespace(name="Failed")}
    rows = run_table(plan, states).splitlines()[2:]
    assert rows[0].startswith("| evaluate | cached | mAP 0.2500, NDS 0.5000 | ")
    assert f"`{artifact.path}`" in rows[0]
    assert rows[1] == "| depth | failed | | | | |"
