"""The dataroot of a config, made by simulation where the config says so and it is not there."""

from tasks.engine.config import PipelineConfig


def ensure_dataroot(config: PipelineConfig) -> None:
    """Simulate the world where the config has one and its dataroot is not there. Raises UserError."""
    if config.simulate is None or config.dataroot is None:
        return
    from simulate.write import simulate

    simulate(config.simulate, config.dataroot)
