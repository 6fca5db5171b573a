"""Let torchvision be imported beside a torch for CPUs: import this before timm and transformers, which import it."""

import torch

# torchvision as it comes from the registry is built for GPUs: its operators, of which none is used, do not load.
_operators = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
