"""What clients speak: each a translation onto `Service.classify`, with its own form of refusal.

tei hub vllm moderation kserve sagemaker   the protocols
"""

from __future__ import annotations

from tunelab.serve.protocols.hub import HUB
from tunelab.serve.protocols.kserve import KSERVE
from tunelab.serve.protocols.moderation import MODERATION
from tunelab.serve.protocols.sagemaker import SAGEMAKER
from tunelab.serve.protocols.tei import TEI
from tunelab.serve.protocols.vllm import VLLM
from tunelab.serve.service import Door

__all__ = [
    "DOORS",
]

DOORS: tuple[Door, ...] = (*TEI, *HUB, *VLLM, *MODERATION, *KSERVE, *SAGEMAKER)
