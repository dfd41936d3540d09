/* The driver's interface, as Triton's and inductor's launchers use it. Modules and functions are names for nothing. */
#define _GNU_SOURCE
#include "null.h"
#include <dlfcn.h>

#define CONTEXT_OF(gpu) ((CUcontext)(size_t)(0x1000 + (gpu)))

API CUresult cuInit(unsigned flags)
{
    return CUDA_SUCCESS;
}

API CUresult cuDriverGetVersion(int *version)
{
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetCount(int *num)
{
    *num = num_gpus();
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGet(CUdevice *device, int gpu)
{
    *device = gpu;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice gpu)
{
    return (CUresult)cudaDeviceGetAttribute(value, (enum cudaDeviceAttr)attribute, gpu); /* the numbers are the same */
}

API CUresult cuCtxGetCurrent(CUcontext *context)
{
    *context = CONTEXT_OF(current_gpu());
    return CUDA_SUCCESS;
}

API CUresult cuCtxGetDevice(CUdevice *device)
{
    *device = current_gpu();
    return CUDA_SUCCESS;
}

API CUresult cuCtxGetLimit(size_t *value, CUlimit limit)
{
    *value = 0;
    return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice gpu)
{
    *context = CONTEXT_OF(gpu);
    return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxGetState(CUdevice gpu, unsigned *flags, int *is_active)
{
    *flags = 0;
    *is_active = 1;
    return CUDA_SUCCESS;
}

static void *new_name(void)
{
    static _Atomic size_t last = 0x100000;
    return (void *)(last += 16);
}

API CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    *module = new_name();
    return CUDA_SUCCESS;
}

API CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    *function = new_name();
    return CUDA_SUCCESS;
}

API CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : attribute == CU_FUNC_ATTRIBUTE_NUM_REGS ? 32 : 0;
    return CUDA_SUCCESS;
}

API CUresult cuOccupancyMaxActiveClusters(int *num, CUfunction function, const CUlaunchConfig *settings)
{
    *num = 8;
    return CUDA_SUCCESS;
}

API CUresult cuLaunchKernelEx(const CUlaunchConfig *settings, CUfunction function, void **arguments, void **extra)
{
    work(triton, settings->hStream);
    return CUDA_SUCCESS;
}

API CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                            unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **arguments,
                            void **extra)
{
    work(triton, stream);
    return CUDA_SUCCESS;
}

API CUresult cuGetErrorString(CUresult error, const char **text)
{
    *text = "an error of the null device";
    return CUDA_SUCCESS;
}

/* Triton asks for the device's own address of a tensor. */
API CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr address)
{
    *(CUdeviceptr *)value = address;
    return CUDA_SUCCESS;
}

/* ---- how torch finds functions of the driver */

static CUresult do_nothing(void)
{
    return CUDA_SUCCESS;
}

static void *find(const char *name)
{
    void *function = dlsym(RTLD_DEFAULT, name);
    if (!function)
        note(name);
    return function ? function : (void *)do_nothing;
}

API cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                                 unsigned long long flags, enum cudaDriverEntryPointQueryResult *result)
{
    *function = find(name);
    if (result)
        *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

API CUresult cuGetProcAddress_v2(const char *name, void **function, int version, cuuint64_t flags,
                                 CUdriverProcAddressQueryResult *result)
{
    *function = find(name);
    if (result)
        *result = CU_GET_PROC_ADDRESS_SUCCESS;
    return CUDA_SUCCESS;
}
