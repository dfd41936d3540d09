"""Which decoder DALI works with in a job: one for all ranks, proven before anything depends on it."""

import os
from dataclasses import replace
from typing import TypeVar

from pipeline.config import DaliDecoder, Reading
from pipeline.core.errors import ConfigError
from pipeline.data import dali_proof
from pipeline.data.backend import Backend, DaliDecoding
from pipeline.data.index import Index
from pipeline.devices.world import World

_Reading = TypeVar("_Reading", bound=Reading)


def is_dali(backend: type[Backend]) -> bool:
    """Whether the choice of a decoder is for this backend."""
    return backend.name == "dali"


def as_begun(reading: _Reading, *, reads_by_dali: bool, decoder: DaliDecoder) -> _Reading:
    """With what "auto" stood for on CUDA when a run or store was begun: today it may stand for something else.

    Args:
        reading: the flags.
        reads_by_dali: whether DALI was chosen then, and still can be.
        decoder: what DALI decoded with.
    """
    backend = "dali" if reading.backend == "auto" and reads_by_dali else reading.backend
    return replace(
        reading, backend=backend, dali_decoder=decoder if reading.dali_decoder == "auto" else reading.dali_decoder
    )


def check_decoder_is_used(reading: Reading, *chosen: type[Backend]) -> None:
    """Refuse `--dali-decoder mixed` where no data set is read by DALI, of the backends that were chosen.

    Raises:
        ConfigError: none of them is.
    """
    if reading.dali_decoder == "mixed" and not any(map(is_dali, chosen)):
        raise ConfigError(
            f"--dali-decoder mixed is for --backend dali, and --backend {reading.backend} takes {chosen[0].name} here:"
            " name dali, or leave the flag out"
        )


def choose_decoder(reading: Reading, index: Index, world: World) -> DaliDecoder:
    """Resolve `--dali-decoder` for a job that reads `index` with DALI. A collective call.

    On each machine one rank proves the decoder; if it fails on one of them, all ranks decode on the CPU: which decoder
    made the pixels is part of what a store or a run is.

    Args:
        reading: the flags.
        index: whose images the proof decodes.
        world: the ranks.

    Raises:
        ConfigError: the decoder was insisted on, and there is no device, or its proof fails.
    """
    asked = reading.dali_decoder
    if world.device.type != "cuda":
        if asked == "mixed":
            raise ConfigError("--dali-decoder mixed decodes on a CUDA device, and this job runs on the CPU: use cpu")
        return "cpu"
    if asked == "cpu":
        return "cpu"
    reason = None
    if os.environ.get("LOCAL_RANK", "0") == "0":
        decoding = DaliDecoding("mixed", reading.dali_hw_decoder_load)
        reason = dali_proof.prove(index, device=str(world.device), decoding=decoding, num_threads=world.threads)
    failures = [f"rank {rank}: {said}" for rank, said in enumerate(world.gather(reason)) if said is not None]
    if not failures:
        return "mixed"
    if asked == "mixed":
        raise ConfigError(
            "--dali-decoder mixed, asked for here or when this was begun, fails on a few of the images:\n"
            f"{failures[0]}.\nUse another version of DALI or nvImageCodec; for a new run or store, --dali-decoder cpu."
        )
    if world.is_main:
        print(f"DALI decodes on the CPU, since its mixed decoder failed on a few images ({failures[0]})", flush=True)
    return "cpu"
