"""torchvision's detectors as modules that can be traced: images in one tensor, the same tensors and names."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Detector(nn.Module):
    """A detector whose backbone and heads are vertices.

    The original takes a list of images and loops over it, which no graph can hold. This one takes
    images of one size in one tensor; what needs values (proposals, boxes) is one vertex each.
    It adopts the original's children, so names and order of all tensors are the original's.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        for name, child in original.named_children():
            self.add_module(name, child)
        # A second, stateless transform: the first belongs to the backbone, and is frozen with it.
        self.image_sizes = copy.deepcopy(original.get_submodule("transform"))
        self.detections = Detections(original)

    def forward(self, x: Tensor) -> Any:
        """Return what the original returns for the list of these images.

        Shape:
            in: (N, 3, H, W), RGB in [0, 1]   out: a list of N dictionaries (boxes, labels, scores …)
        """
        child: Any = self._modules
        maps = child["backbone"](child["transform"](x)[0].tensors)
        images = self.image_sizes(x)[0]
        if "rpn" in child:
            proposals = child["rpn"](images, maps)
            boxes = child["roi_heads"](maps, proposals[0], images.image_sizes)
            return self.detections(x, images, maps, {"rpn": proposals, "roi_heads": boxes})
        levels = list(maps.values())
        anchors = child["anchor_generator"](images, levels)
        found = {"head": child["head"](levels), "anchor_generator": anchors}
        return self.detections(x, images, maps, found)


class Detections(nn.Module):
    """What is left of the original's forward, by itself: with the results of its children given."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        shell = copy.copy(original)
        shell._modules = {}  # its settings alone; the children are the detector's
        self._shell = shell

    def forward(self, x: Tensor, images: Any, maps: Any, found: dict[str, Any]) -> Any:
        """Turn scores and boxes into detections on the images as they came in."""
        shell: Any = copy.copy(self._shell)
        results = {"transform": (images, None), "backbone": maps, **found}
        shell._modules = {name: _Given(result) for name, result in results.items()}
        shell.training = False
        return type(shell).forward(shell, list(x))


class _Given:
    """Stands for a child of the original whose result is there."""

    training = False

    def __init__(self, result: Any) -> None:
        self.result = result

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.result

    def postprocess(self, *args: Any) -> Any:
        """Map boxes back to the images as they came in, as the original's transform does."""
        from torchvision.models.detection.transform import GeneralizedRCNNTransform

        postprocess: Callable[..., Any] = GeneralizedRCNNTransform.postprocess
        return postprocess(self, *args)
