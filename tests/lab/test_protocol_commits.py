"""Rules come before the runs that they judge: each run names a commit, and the protocol lies in it."""

import json
import subprocess

import pytest

from agr_utils.machine import repository_root

ROOT = repository_root()
JUDGED_BY = {"claims": "docs/protocol.md", "ablations": "docs/protocol.md", "protocol_2": "docs/protocol_2.md"}
JUDGED_BY |= {"cues_128": "docs/protocol_2.md", "maps_128": "docs/protocol_2.md"}


def git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)


def commit_of(config) -> str:
    return json.loads(config.read_text())["commit"].removesuffix("+changes")


pytestmark = pytest.mark.skipif(
    git("rev-parse", "--is-shallow-repository").stdout.strip() != "false", reason="needs the history of the repository"
)


@pytest.mark.parametrize(("folder", "protocol"), JUDGED_BY.items())
def test_each_run_was_made_with_the_rules_that_judge_it(folder, protocol):
    records = sorted((ROOT / "results" / folder).glob("**/config.json"))
    assert records
    for commit in {commit_of(path) for path in records}:
        assert git("cat-file", "-e", f"{commit}:{protocol}").returncode == 0, f"{commit} lacks {protocol}"


def test_rules_of_the_second_protocol_only_grow():
    records = (ROOT / "results/protocol_2").glob("*/config.json")
    for commit in {commit_of(path) for path in records}:
        judged = git("show", f"{commit}:docs/protocol_2.md").stdout.splitlines()
        now = iter((ROOT / "docs/protocol_2.md").read_text().splitlines())
        missing = [line for line in judged if line not in now]  # reads on in "now": order counts
        assert not missing, f"lines that judged runs of {commit[:7]} were changed: {missing[:2]}"


def test_runs_of_the_second_protocol_are_those_of_its_plan():
    import pandas as pd

    from agr_lab.gpu.protocol import plan

    trials = pd.read_csv(ROOT / "results/protocol_2/trials.csv", index_col="trial")
    planned = {job.name: job for job in plan(trials.to_dict("index"))}
    assert set(trials.index) <= set(planned)
    for path in (ROOT / "results/protocol_2").glob("*/config.json"):
        job, about = planned[path.parent.name.removesuffix("-cpu")], json.loads(path.read_text())
        assert (about["precision"] == "fp32") == path.parent.name.endswith("-cpu")
        assert (about["job"]["learning_rate"], about["job"]["task_weights"]) == (job.learning_rate, job.task_weights)
        assert about["job"]["epochs"] == pytest.approx(job.epochs)
