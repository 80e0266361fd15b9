"""What every training on ranks can be told, free of torch."""

from typing import Literal

from pydantic import Field, model_validator

from common.settings import Settings, runtime
from models.checkpointing import Checkpointing

Precision = Literal["fp32", "tf32", "bf16"]
MOST_BATCH = 65_536  # samples a step; a mistyped number is said, not waited for


class TrainingSettings(Settings):
    """The fields that all trainings share: samples of a step, precision, average, and how it runs."""

    batch_size: int = Field(16, ge=1, le=MOST_BATCH, description="Samples a step, over all ranks.")
    accumulate: int = Field(
        1, ge=1, description="Micro-batches a step, one after the other; batch norm sees one at a time."
    )
    sampling: Literal["uniform", "cbgs"] = Field(
        "uniform", description="Every sample once an epoch, or those with rare classes more often, as the original."
    )
    precision: Precision = Field("fp32", description="Of the products; weights stay fp32.")
    ema: float = Field(0.0, ge=0, lt=1, description="Decay of the weights' average, which is then the result; 0: none.")
    seed: int = Field(0, ge=0, description="Of weights, sample order and augmentation.")

    ranks: int = runtime(0, "Processes that share a step; 0: one per GPU that batch_size allows, one on a CPU.", ge=0)
    loaders: int = runtime(0, "Threads of each rank that load ahead; 0: one on a CPU, else its cores but one.", ge=0)
    threads: int = runtime(0, "CPU threads; 0 takes all. Another number may change the last bits of a result.", ge=0)
    device: str = runtime("auto", "cpu, cuda, or auto: CUDA where there is one.")
    seconds_between_saves: float = runtime(120.0, "Between checkpoints.", gt=0)
    skip_samples: tuple[str, ...] = runtime((), "Tokens of samples to leave out; others of train take their places.")

    @model_validator(mode="after")
    def _shares_are_equal(self) -> "TrainingSettings":
        if self.batch_size % (self.accumulate * max(1, self.ranks)):
            raise ValueError(
                f"batch_size is {self.batch_size}, which accumulate ({self.accumulate}) times ranks "
                f"({max(1, self.ranks)}) does not divide: every rank needs the same number of samples"
            )
        return self


class CameraTrainingSettings(TrainingSettings):
    """Those of networks that begin with images."""

    checkpointing: Checkpointing = runtime(
        "mlp", "What the backward pass makes again (none, MLPs' activations, whole blocks): less memory, more time."
    )
    compile: bool = runtime(False, "Compile the network: minutes at the start, less time a step; may round otherwise.")
