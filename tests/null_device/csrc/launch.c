/* What the device says that it is, and kernels of torch, which are counted. */
#include "null.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local int chosen_gpu;

int num_gpus(void)
{
    const char *text = getenv("NULL_DEVICE_GPUS");
    int num = text ? atoi(text) : 1;
    return num < 0 ? 0 : num > MAX_GPUS ? MAX_GPUS : num;
}

int current_gpu(void)
{
    return chosen_gpu;
}

API cudaError_t cudaGetDeviceCount(int *num)
{
    *num = num_gpus();
    return *num ? cudaSuccess : cudaErrorNoDevice;
}

API cudaError_t cudaGetDevice(int *gpu)
{
    *gpu = chosen_gpu;
    return cudaSuccess;
}

API cudaError_t cudaSetDevice(int gpu)
{
    if (gpu < 0 || gpu >= num_gpus())
        return cudaErrorInvalidDevice;
    chosen_gpu = gpu;
    return cudaSuccess;
}

API cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

API cudaError_t cudaDriverGetVersion(int *version)
{
    return cudaRuntimeGetVersion(version);
}

/* An H100 by its data sheet: torch, Triton and inductor choose kernels by some of these. */
API cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int gpu)
{
    *properties = (struct cudaDeviceProp){
        .name = "NVIDIA H100 80GB HBM3",
        .major = 9,
        .totalGlobalMem = (size_t)80 << 30,
        .multiProcessorCount = 132,
        .warpSize = 32,
        .maxThreadsPerBlock = 1024,
        .maxThreadsPerMultiProcessor = 2048,
        .maxBlocksPerMultiProcessor = 32,
        .maxThreadsDim = {1024, 1024, 64},
        .maxGridSize = {2147483647, 65535, 65535},
        .regsPerBlock = 65536,
        .regsPerMultiprocessor = 65536,
        .sharedMemPerBlock = 48 << 10,
        .sharedMemPerBlockOptin = 227 << 10,
        .sharedMemPerMultiprocessor = 228 << 10,
        .l2CacheSize = 50 << 20,
        .memoryBusWidth = 5120,
        .pciBusID = gpu + 1,
        .unifiedAddressing = 1,
    };
    return cudaSuccess;
}

API cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int gpu)
{
    static const int values[256] = {
        [cudaDevAttrComputeCapabilityMajor] = 9,
        [cudaDevAttrMultiProcessorCount] = 132,
        [cudaDevAttrWarpSize] = 32,
        [cudaDevAttrMaxThreadsPerBlock] = 1024,
        [cudaDevAttrMaxSharedMemoryPerBlock] = 48 << 10,
        [cudaDevAttrMaxSharedMemoryPerBlockOptin] = 227 << 10,
        [cudaDevAttrMaxSharedMemoryPerMultiprocessor] = 228 << 10,
        [cudaDevAttrMaxRegistersPerBlock] = 65536,
        [cudaDevAttrMaxGridDimX] = 2147483647,
        [cudaDevAttrMaxGridDimY] = 65535,
        [cudaDevAttrMaxGridDimZ] = 65535,
        [cudaDevAttrClockRate] = 1980000,
        [cudaDevAttrMemoryClockRate] = 2619000,
        [cudaDevAttrGlobalMemoryBusWidth] = 5120,
    };
    int known = attribute < 256 ? values[attribute] : 0;
    bool is_minor = attribute == cudaDevAttrComputeCapabilityMinor;
    *value = known || is_minor ? known : 1; /* nearly all others ask whether something is supported */
    return cudaSuccess;
}

API cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int gpu)
{
    snprintf(text, size, "0000:%02x:00.0", gpu + 1);
    return cudaSuccess;
}

API cudaError_t cudaDeviceCanAccessPeer(int *can, int gpu, int peer)
{
    *can = 1;
    return cudaSuccess;
}

API cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

API cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *kernel)
{
    *attributes = (struct cudaFuncAttributes){
        .maxThreadsPerBlock = 1024, .numRegs = 32, .binaryVersion = 90, .ptxVersion = 90};
    return cudaSuccess;
}

API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *num, const void *kernel, int threads, size_t shared)
{
    *num = 4;
    return cudaSuccess;
}

API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *num, const void *kernel, int threads,
                                                                       size_t shared, unsigned flags)
{
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(num, kernel, threads, shared);
}

/* ---- kernel<<<grid, block, shared, stream>>> pushes its settings; the kernel's stub, by nvcc, pops them and launches */

static _Thread_local struct settings {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
} pushed_settings;

API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream)
{
    pushed_settings = (struct settings){grid, block, shared, stream};
    return 0;
}

API cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, cudaStream_t *stream)
{
    *grid = pushed_settings.grid;
    *block = pushed_settings.block;
    *shared = pushed_settings.shared;
    *stream = pushed_settings.stream;
    return cudaSuccess;
}

API cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *symbol)
{
    *kernel = (cudaKernel_t)symbol;
    return cudaSuccess;
}

#define LAUNCHES(name, kernel_type)                                                                            \
    API cudaError_t name(kernel_type kernel, dim3 grid, dim3 block, void **arguments, size_t shared,           \
                         cudaStream_t stream)                                                                  \
    {                                                                                                          \
        work(launches, stream);                                                                                \
        return cudaSuccess;                                                                                    \
    }
LAUNCHES(cudaLaunchKernel, const void *)
LAUNCHES(cudaLaunchCooperativeKernel, const void *)
LAUNCHES(__cudaLaunchKernel, cudaKernel_t)

API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *settings, const void *kernel, void **arguments)
{
    work(launches, settings->stream);
    return cudaSuccess;
}
