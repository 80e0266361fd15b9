"""Which stages a config asks for, with which settings, and which of them reads which: the DAG of one run.

The fifth stage trains an arm and evaluates it; with `finetune.baseline` there is a second arm, which begins where
pretraining began and differs in nothing else. Each arm has artifacts of its own, so that many configs share that one.
"""

from dataclasses import dataclass

from common.settings import Settings
from tasks.engine.config import PipelineConfig
from tasks.engine.stage import BELONGS_TO, STAGES, Stage, StageName
from tasks.finetune.config import Evaluation, FinetuneConfig

BASELINE = "-baseline"  # behind the names of the second arm's steps


@dataclass(frozen=True)
class Node:
    """A node of the DAG. needs: stage -> the name of the node whose artifact is read in its place."""

    name: str
    stage: Stage
    config: Settings
    needs: dict[str, str]

    @property
    def command(self) -> StageName:
        """The stage whose command on the command line runs it."""
        return BELONGS_TO.get(self.stage.name, self.stage.name)


def build_dag(config: PipelineConfig) -> list[Node]:
    """The nodes, each behind those that it reads."""
    nodes: list[Node] = []

    def add(name: str, stage: StageName, settings: Settings, *needs: str, suffix: str = "") -> None:
        names = {node.name for node in nodes}
        read = {need: need + suffix if need + suffix in names else need for need in needs}
        nodes.append(Node(name, STAGES[stage], settings, {need: node for need, node in read.items() if node in names}))

    add("ingest", "ingest", config.ingest)
    for name in ("fit", "teacher", "depth", "pretrain"):
        if not why_left_out(config, name):
            read = config.pretrain.needs if name == "pretrain" else STAGES[name].needs
            add(name, name, getattr(config, name), *read)
    if config.evaluate.checkpoint is not None:
        add("evaluate", "evaluate", _evaluation(config, config.finetune), "ingest")
        return nodes
    for suffix, arm in arms(config).items():
        needs = ["ingest", *(["depth"] if arm.needs_depth else []), *(["pretrain"] if arm.init == "pretrain" else [])]
        add(f"finetune{suffix}", "finetune", arm, *needs)
        add(f"evaluate{suffix}", "evaluate", _evaluation(config, arm), "ingest", "finetune", suffix=suffix)
    return nodes


def arms(config: PipelineConfig) -> dict[str, FinetuneConfig]:
    """What is behind the names of an arm's steps -> its config; the first is what the run is about."""
    finetune, begins = config.finetune, config.pretrain.init or "random"
    out = {"": finetune}
    if finetune.baseline and finetune.init not in ("random", begins):
        out[BASELINE] = finetune.model_copy(update={"init": begins})
    return out


def why_left_out(config: PipelineConfig, name: str) -> str:
    """Why a run of this config leaves a stage out; empty where it does not."""
    finetune, evaluates_file = config.finetune, config.evaluate.checkpoint is not None
    unused = "" if finetune.init == "pretrain" else f"finetune.init is {finetune.init!r}, not 'pretrain'"
    if evaluates_file:
        unused = "evaluate.checkpoint is evaluated as it is"
    fitted = config.teacher.weights == "fit"
    unread = {}
    for need in ("teacher", "depth"):
        read = need in config.pretrain.needs
        unread[need] = unused or ("" if read else f"pretrain.method {config.pretrain.method.name} does not read it")
    return {
        "fit": unread["teacher"] or ("" if fitted else f"teacher.weights is {config.teacher.weights!r}, not 'fit'"),
        "teacher": unread["teacher"],
        "depth": "" if finetune.needs_depth and not evaluates_file else unread["depth"],
        "pretrain": unused,
        "finetune": unused if evaluates_file else "",
    }.get(name, "")


def _evaluation(config: PipelineConfig, arm: FinetuneConfig) -> Evaluation:
    return Evaluation(evaluate=config.evaluate, detector=arm)
