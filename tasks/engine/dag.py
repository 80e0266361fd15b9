"""Which stages a config asks for, with which settings, and which of them reads which: the DAG of one run.

The fifth stage trains an arm and evaluates it; with `finetune.from_scratch` there is a second arm, which differs in
what it begins with alone. Each arm has artifacts of its own, so that many configs share the one from scratch.
"""

from dataclasses import dataclass

from common.settings import Settings
from tasks.engine.config import PipelineConfig
from tasks.engine.stage import BELONGS_TO, STAGES, Stage, StageName
from tasks.finetune.config import Evaluation, FinetuneConfig

SCRATCH = "-scratch"  # behind the names of the second arm's steps


@dataclass(frozen=True)
class Wanted:
    """A node of the DAG. needs: stage -> the name of the node whose artifact is read in its place."""

    name: str
    stage: Stage
    config: Settings
    needs: dict[str, str]

    @property
    def command(self) -> StageName:
        """The stage whose command on the command line runs it."""
        return BELONGS_TO.get(self.stage.name, self.stage.name)


def wanted(config: PipelineConfig) -> list[Wanted]:
    """The nodes, each behind those that it reads."""
    nodes: list[Wanted] = []

    def add(name: str, stage: StageName, settings: Settings, *needs: str, behind: str = "") -> None:
        there = {node.name for node in nodes}
        read = {need: need + behind if need + behind in there else need for need in needs}
        nodes.append(
            Wanted(name, STAGES[stage], settings, {need: node for need, node in read.items() if node in there})
        )

    add("ingest", "ingest", config.ingest)
    for name in ("fit", "teacher", "depth", "pretrain"):
        if not why_unwanted(config, name):
            add(name, name, getattr(config, name), *STAGES[name].needs)
    if config.evaluate.checkpoint is not None:
        add("evaluate", "evaluate", _evaluation(config, config.finetune), "ingest")
        return nodes
    for behind, arm in arms(config).items():
        needs = ["ingest", *(["depth"] if arm.needs_depth else []), *(["pretrain"] if arm.init == "pretrain" else [])]
        add(f"finetune{behind}", "finetune", arm, *needs)
        add(f"evaluate{behind}", "evaluate", _evaluation(config, arm), "ingest", "finetune", behind=behind)
    return nodes


def arms(config: PipelineConfig) -> dict[str, FinetuneConfig]:
    """What is behind the names of an arm's steps -> its config; the first is what the run is about."""
    finetune = config.finetune
    out = {"": finetune}
    if finetune.from_scratch and finetune.init != "random":
        out[SCRATCH] = finetune.model_copy(update={"init": "random"})
    return out


def why_unwanted(config: PipelineConfig, name: str) -> str:
    """Why nobody in this config wants a stage's result; empty where somebody does."""
    finetune, given = config.finetune, config.evaluate.checkpoint is not None
    unused = "" if finetune.init == "pretrain" else f"finetune.init is {finetune.init!r}, not 'pretrain'"
    if given:
        unused = "evaluate.checkpoint is evaluated as it is"
    fitted = config.teacher.weights == "fit"
    return {
        "fit": unused or ("" if fitted else f"teacher.weights is {config.teacher.weights!r}, not 'fit'"),
        "teacher": unused,
        "depth": "" if finetune.needs_depth and not given else unused,
        "pretrain": unused,
        "finetune": unused if given else "",
    }.get(name, "")


def _evaluation(config: PipelineConfig, arm: FinetuneConfig) -> Evaluation:
    return Evaluation(evaluate=config.evaluate, detector=arm)
