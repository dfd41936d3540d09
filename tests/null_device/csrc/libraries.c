/* cuBLAS and cuDNN, as far as they give answers; stubs.py makes the many functions that give none. */
#include "null.h"
#include <cudnn_graph.h>
#include <stdlib.h>
#include <string.h>

/* For the generated stubs, which know no header. */
void handle_gemm(struct handle *handle)
{
    work(gemms, handle->stream);
}

void handle_dnn(struct handle *handle)
{
    work(dnn, handle->stream);
}

struct algorithm { /* cublasLtMatmulHeuristicResult_t; its header needs more than the wheels hold */
    unsigned long long opaque[8];
    size_t workspace;
    int status;
    float waves;
    int reserved[4];
};

/* The first algorithm, which needs no workspace. */
API int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                       int wanted, struct algorithm *algorithms, int *num)
{
    *algorithms = (struct algorithm){.waves = 1};
    *num = 1;
    return 0;
}

API int cublasLtMatmul(void *handle, void *operation, const void *alpha, const void *a, void *a_layout, const void *b,
                       void *b_layout, const void *beta, const void *c, void *c_layout, void *d, void *d_layout,
                       const void *algorithm, void *workspace, size_t size, cudaStream_t stream)
{
    work(gemms, stream);
    return 0;
}

/* ---- cuDNN's graphs: each is supported, by one engine that has no knobs and needs no workspace */

static bool is_optional(cudnnBackendAttributeName_t name)
{
    switch (name) {
    case CUDNN_ATTR_ENGINE_KNOB_INFO:
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
    case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE:
    case CUDNN_ATTR_ENGINE_LAYOUT_INFO:
    case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES:
    case CUDNN_ATTR_ENGINECFG_INTERMEDIATE_INFO:
        return true;
    default:
        return false;
    }
}

static size_t size_of(cudnnBackendAttributeType_t type)
{
    if (type == CUDNN_TYPE_BOOLEAN)
        return 1;
    return type == CUDNN_TYPE_INT64 ? 8 : type == CUDNN_TYPE_INT32 ? 4 : 0; /* descriptors are the caller's own */
}

API cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name,
                                           cudnnBackendAttributeType_t type, int64_t wanted, int64_t *num, void *values)
{
    if (num)
        *num = !is_optional(name);
    if (values && wanted > 0 && !is_optional(name))
        memset(values, 0, size_of(type));
    return CUDNN_STATUS_SUCCESS;
}
