"""The node that says how a training run is watched."""

from __future__ import annotations

from comfy_api.latest import io

from ...faces.recognise import backends
from ...schema import MonitorType, schema, seed
from ..pictures.class_nodes import sampling_inputs
from ..pictures.class_photos import prompt_lines
from ..pictures.sampling import Sampling
from .monitor import DEFAULT_PROMPTS, Monitor
from .stopping import StopRule


class TrainingMonitorNode(io.ComfyNode):
    """How often a run is looked at, by whom, and when it ends."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        known, rule = Monitor(), StopRule()
        return schema(
            "LikenessTrainingMonitor", feature="training",
            display_name="Likeness Training Monitor",
            description="Settings for looking at a run while it trains: every so many steps sample "
                        "pictures are made from fixed seeds and compared with the photos that "
                        "never train. The best state is the result, and a run ends when likeness "
                        "has stopped rising. Goes into Train, whose CLIP and VAE it uses.",
            inputs=[
                io.Int.Input("every", default=known.every, min=0, max=10**6,
                             tooltip="Steps between looks; 0 takes none. Each look costs as much "
                                     "as making its pictures; 5 to 10 looks in a run are plenty."),
                io.String.Input("prompts", default=DEFAULT_PROMPTS, multiline=True,
                                tooltip="One prompt per line, used in turn. {subject} is trigger "
                                        "and class noun, {trigger} and {class} are these alone. "
                                        "Name places and clothes that are not in the photos."),
                io.String.Input("negative", default=known.negative, multiline=True,
                                tooltip="What the sample pictures should not show; FLUX ignores "
                                        "it at cfg 1."),
                io.Int.Input("pictures", default=known.pictures, min=1, max=64,
                             tooltip="Pictures in each look. Likeness is their median: 4 to 8 "
                                     "make it steady."),
                seed("Noise of the first picture; each further one takes the next number. The "
                     "same in every look, so that looks can be compared."),
                io.Int.Input("width", default=known.width, min=0, max=8192, step=8,
                             tooltip="Pixels; 0 takes the size at which the photos train."),
                io.Int.Input("height", default=known.height, min=0, max=8192, step=8,
                             tooltip="Pixels; 0 takes the size at which the photos train."),
                *sampling_inputs(known.sampling),
                io.Combo.Input("recogniser", options=backends.ids(), default=known.backend,
                               tooltip="Who judges the faces: two together, or one. Where the one "
                                       "chosen teaches the run as its identity loss, both judge: "
                                       "nobody judges himself. "
                                       + backends.choices_text()),
                io.Int.Input("patience", default=rule.patience, min=0, max=1000,
                             tooltip="Looks in a row without a rise after which the run ends when "
                                     "copy-paste has risen since; twice as many end it when it has "
                                     "not. 0: likeness never ends the run, the best state is "
                                     "still the result."),
                io.Int.Input("minimum_steps", default=rule.minimum_steps, min=0, max=10**6,
                             tooltip="Steps before which likeness does not end the run; raise it "
                                     "when runs end before anything was learned."),
                io.Float.Input("copy_limit", default=rule.copy_limit, min=0.0, max=1.0, step=0.01,
                               tooltip="Copy-paste beyond which a state is not chosen: near 0 it "
                                       "is as near to the nearest training photo as to others of "
                                       "the person, 1 is that photo. 0 sets no limit; 0.2 is "
                                       "strict."),
                io.Float.Input("minutes", default=rule.minutes, min=0.0, max=10**5, step=1.0,
                               tooltip="Minutes of training after which the run ends, with the "
                                       "best state so far. 0 sets no limit."),
                io.Float.Input("margin", default=rule.margin, min=0.0, max=1.0, step=0.005,
                               round=False,
                               tooltip="Similarity by which a look must be better to count as a "
                                       "rise; less is chance. Raise it with few pictures."),
            ],
            outputs=[MonitorType.Output(display_name="monitor",
                                        tooltip="The settings, checked; goes into Train.")],
        )

    @classmethod
    def execute(cls, every: int, prompts: str, negative: str, pictures: int, seed: int, width: int,
                height: int, steps: int, cfg: float, sampler: str, scheduler: str, guidance: float,
                recogniser: str, patience: int, minimum_steps: int, copy_limit: float,
                minutes: float, margin: float) -> io.NodeOutput:
        backends.require(recogniser)  # now, not after the first hour of training
        return io.NodeOutput(Monitor(
            every=every, prompts=prompt_lines(prompts), negative=negative.strip(),
            pictures=pictures, seed=seed, width=width, height=height, backend=recogniser,
            sampling=Sampling(steps=steps, cfg=cfg, sampler=sampler, scheduler=scheduler,
                              guidance=guidance),
            rule=StopRule(patience=patience, minimum_steps=minimum_steps, copy_limit=copy_limit,
                          minutes=minutes, margin=margin)))


NODES: list[type[io.ComfyNode]] = [TrainingMonitorNode]
