"""C for the functions that PyTorch and Triton link and csrc/ does not define.

What a name says decides what its stub does. A stub takes its arguments as addresses, and does not look at those that it
was not given, which the x86-64 calling convention allows.
"""

import re
from collections.abc import Iterable

# of CUDA's runtime, driver, cuBLAS and cuDNN; cuFile, cuFFT, cuRAND, cuSPARSE and cuSOLVER are the real libraries
_OURS = re.compile(r"(__)?(cuda|cublas|cublasLt|cudnn)[A-Z]\w*|cu(?!File)[A-Z]\w*")
# questions that the real libraries answer without a device
_THEIRS = re.compile(r"\w+(GetErrorString|GetErrorName|GetLastErrorString|GetVersion|GetCudartVersion|GetProperty)")

_MAKE, _DROP = "*(void **)a0 = calloc(1, 512);", "free(a0);"
# the first that fits; else the answer is "success" and nothing else
_BODIES = {
    r"__cuda\w+": "",  # of nvcc's code: there is nothing to load kernels on
    r"cudnnBackendCreateDescriptor": "*(void **)a1 = calloc(1, 512);",
    r"cudnnBackendDestroyDescriptor": "free(a0);",
    r"cudnnBackendExecute": "handle_dnn(a0);",
    r"(cudnn|cublas|cublasLt)\w*Create\w*": _MAKE,
    r"(cudnn|cublas|cublasLt)\w*Destroy\w*": _DROP,
    r"(cudnn|cublas)SetStream(_v2)?": "*(void **)a0 = a1;",
    r"cudnnGetStream": "*(void **)a1 = *(void **)a0;",
    r"cublasGet(Math|Pointer)Mode(_v2)?": "*(int *)a1 = 0;",
    r"cudnnDropoutGetStatesSize": "*(size_t *)a1 = 0;",
    r"cudnnGetBatchNormalizationTrainingExReserveSpaceSize": "*(size_t *)a5 = 0;",
    r"cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize": "*(size_t *)a8 = 0;",
    r"cudnnGetBatchNormalizationBackwardExWorkspaceSize": "*(size_t *)a10 = 0;",
    r"cudnn(?!Get|Set|Find)\w*(Forward|Backward|CTCLoss)\w*": "handle_dnn(a0);",
    r"cublas(?!Lt|Get|Set)\w+": "handle_gemm(a0);",
}
_PARAMETERS = ", ".join(f"void *a{number}" for number in range(11))
# without CUDA's headers, whose prototypes are the real ones
_HEADER = """#include <stdlib.h>
void note(const char *);
void handle_gemm(void *);
void handle_dnn(void *);
"""


def stubs(imported: Iterable[str], defined: Iterable[str]) -> str:
    """The C source: a function for each name of `imported` that is the device's to answer, and not in `defined`."""
    names = sorted(
        name for name in set(imported) - set(defined) if _OURS.fullmatch(name) and not _THEIRS.fullmatch(name)
    )
    return _HEADER + "\n".join(map(_stub, names)) + "\n"


def _stub(name: str) -> str:
    body = next((body for pattern, body in _BODIES.items() if re.fullmatch(pattern, name)), f'note("{name}");')
    return f'__attribute__((visibility("default"))) int {name}({_PARAMETERS}) {{ {body} return 0; }}'
