"""Top k: the service answers with its k highest posteriors, the rest shared equally."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from palimpsest.catalog import setting
from palimpsest.defend.base import OutputRelease
from palimpsest.errors import BadInput
from palimpsest.task import Task, as_classification


@dataclass(frozen=True)
class TopK(OutputRelease):
    """Answers with the k highest posteriors as they are; what is left of 1 is spread evenly over the other classes.

    A common restriction of prediction services (survey, Table I, stage S3). The highest stays the highest, so accuracy is not
    altered. What it hides are slopes: while a class is not among the k, its posterior says only how much all the others have
    together, so label inference makes fewer probes that are sure of their class (on digits, by the paper's search at k = 1, about
    half as many).

    Guarantees nothing: a probe that is made is answered as sure as it is, before unlearning and after, for as long as its class is
    among the k; random search (`label_inference`, strategy=random_squares) still makes most of the probes, and
    `label_only_inference` needs no posteriors at all.
    """

    weakens = "label_inference"
    paper = "survey, Table I"
    about = "answers with the k highest posteriors alone"

    k: int = setting(3, "posteriors that are shown", source="ours", least=1)

    def check(self, task: Task) -> None:
        classes = as_classification(task, "top_k").classes
        if self.k > classes:
            raise BadInput("top_k.k", got=self.k, expected=f"at most {classes}, the number of classes")

    def answers(self, posterior: Tensor) -> Tensor:
        values, places = posterior.topk(self.k, 1)
        others = posterior.shape[1] - self.k
        left = ((1 - values.sum(1, keepdim=True)).clamp_min(0) / others) if others else values[:, :1] * 0
        return left.expand_as(posterior).scatter(1, places, values)
