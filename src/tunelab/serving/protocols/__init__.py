"""What clients speak: each a translation onto `Service.classify`, with its own form of refusal.

tei hub vllm moderation kserve sagemaker   the protocols
"""

from __future__ import annotations

from tunelab.serving.protocols.hub import HUB
from tunelab.serving.protocols.kserve import KSERVE
from tunelab.serving.protocols.moderation import MODERATION
from tunelab.serving.protocols.sagemaker import SAGEMAKER
from tunelab.serving.protocols.tei import TEI
from tunelab.serving.protocols.vllm import VLLM
from tunelab.serving.service import Door

__all__ = [
    "DOORS",
]

DOORS: tuple[Door, ...] = (*TEI, *HUB, *VLLM, *MODERATION, *KSERVE, *SAGEMAKER)
