/* Memory of the device is address space that nobody may touch: a host that reads it dies, as it should. Pinned memory is
 * the host's own, and remembered, since a copy from or to any other makes the host wait. */
#define _GNU_SOURCE
#include "null.h"
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GPU_BYTES ((size_t)80 << 30)
#define WINDOW_BYTES ((size_t)1 << 38) /* addresses of one GPU; they are not used again, torch's own pool does that */
#define SEGMENT_BYTES ((size_t)2 << 20)

struct block {
    char *start;
    size_t size;
    struct block *next;
};

static char *windows;
static _Atomic size_t used_bytes[MAX_GPUS];
static struct block *pinned;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void reserve(void)
{
    void *base = mmap(NULL, MAX_GPUS * WINDOW_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        abort(); /* an address space limit: ulimit -v */
    windows = base;
}

static bool is_on_device(const void *memory)
{
    return windows && (uintptr_t)memory - (uintptr_t)windows < MAX_GPUS * WINDOW_BYTES;
}

static bool is_pinned(const void *memory)
{
    pthread_mutex_lock(&lock);
    struct block *block = pinned;
    while (block && (uintptr_t)memory - (uintptr_t)block->start >= block->size)
        block = block->next;
    pthread_mutex_unlock(&lock);
    return block;
}

static void pin(void *start, size_t size)
{
    struct block *block = malloc(sizeof *block);
    pthread_mutex_lock(&lock);
    *block = (struct block){start, size, pinned};
    pinned = block;
    pthread_mutex_unlock(&lock);
}

static void unpin(void *start)
{
    pthread_mutex_lock(&lock);
    struct block **link = &pinned;
    while (*link && (*link)->start != start)
        link = &(*link)->next;
    struct block *gone = *link;
    if (gone)
        *link = gone->next;
    pthread_mutex_unlock(&lock);
    free(gone);
}

/* ---- allocation: each of these makes the host wait, or may */

API cudaError_t cudaMalloc(void **memory, size_t size)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int gpu = current_gpu();
    if (is_unsafe("cudaMalloc"))
        return cudaErrorStreamCaptureUnsupported;
    pthread_once(&once, reserve);
    size = (size + SEGMENT_BYTES - 1) / SEGMENT_BYTES * SEGMENT_BYTES;
    size_t offset = atomic_fetch_add(&used_bytes[gpu], size);
    if (offset + size > WINDOW_BYTES)
        return cudaErrorMemoryAllocation;
    count(mallocs);
    note("cudaMalloc");
    *memory = windows + gpu * WINDOW_BYTES + offset;
    return cudaSuccess;
}

API cudaError_t cudaMallocAsync(void **memory, size_t size, cudaStream_t stream)
{
    return cudaMalloc(memory, size);
}

API cudaError_t cudaGetSymbolAddress(void **address, const void *symbol)
{
    return cudaMalloc(address, 1);
}

API cudaError_t cudaFree(void *memory)
{
    if (!memory) /* how programs wake the device */
        return cudaSuccess;
    if (is_unsafe("cudaFree"))
        return cudaErrorStreamCaptureUnsupported;
    count(frees);
    reach_all();
    return cudaSuccess;
}

API cudaError_t cudaHostAlloc(void **memory, size_t size, unsigned flags)
{
    if (is_unsafe("cudaHostAlloc"))
        return cudaErrorStreamCaptureUnsupported;
    if (posix_memalign(memory, 4096, size ? size : 1))
        return cudaErrorMemoryAllocation;
    count(host_allocs);
    note("cudaHostAlloc");
    pin(*memory, size);
    return cudaSuccess;
}

API cudaError_t cudaFreeHost(void *memory)
{
    count(frees);
    reach_all();
    unpin(memory);
    free(memory);
    return cudaSuccess;
}

API cudaError_t cudaHostRegister(void *memory, size_t size, unsigned flags)
{
    count(host_allocs);
    pin(memory, size);
    return cudaSuccess;
}

API cudaError_t cudaHostUnregister(void *memory)
{
    count(frees);
    reach_all();
    unpin(memory);
    return cudaSuccess;
}

API cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *available = *total = GPU_BYTES;
    return cudaSuccess;
}

API cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *memory)
{
    *attributes = (struct cudaPointerAttributes){.type = cudaMemoryTypeUnregistered, .device = current_gpu()};
    if (is_on_device(memory)) {
        attributes->type = cudaMemoryTypeDevice;
        attributes->device = (int)(((char *)memory - windows) / WINDOW_BYTES);
        attributes->devicePointer = (void *)memory;
    } else if (is_pinned(memory)) {
        attributes->type = cudaMemoryTypeHost;
        attributes->devicePointer = attributes->hostPointer = (void *)memory;
    }
    return cudaSuccess;
}

/* ---- what the host has sent, it can read until something is launched that might change it: so do DDP's ranks agree on
 * their buckets, through the device */

enum { NUM_SENT = 16, SENT_BYTES = 1 << 16 };

static struct sent {
    const void *at;
    size_t size;
    long changes; /* at that time */
    char bytes[SENT_BYTES];
} sent[NUM_SENT];
static int next_sent;

void receive(void *to, const void *from, size_t size)
{
    if (size > SENT_BYTES)
        return;
    pthread_mutex_lock(&lock);
    struct sent *slot = &sent[next_sent++ % NUM_SENT];
    slot->at = to, slot->size = size, slot->changes = num_changes();
    memcpy(slot->bytes, from, size);
    pthread_mutex_unlock(&lock);
}

void read_back(void *to, const void *from, size_t size)
{
    memset(to, READ_BYTE, size);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < NUM_SENT; i++) { /* the newest last */
        const struct sent *slot = &sent[(next_sent + i) % NUM_SENT];
        if (slot->at == from && slot->size == size && slot->changes == num_changes())
            memcpy(to, slot->bytes, size);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- copies */

/* The host stages what it sends from memory that is not pinned, and waits for what it receives there. */
static void copy_pageable(struct stream *stream, void *to, const void *from, size_t size, bool to_host)
{
    count(pageable);
    note("copy of memory that is not pinned");
    if (!to_host) {
        receive(to, from, size);
        return;
    }
    reach(stream);
    read_back(to, from, size);
}

static cudaError_t copy(void *to, const void *from, size_t size, cudaStream_t where)
{
    struct stream *stream = stream_of(where);
    bool to_device = is_on_device(to), to_host = !to_device;
    if (to_device && is_on_device(from)) {
        work(d2d, where);
        return cudaSuccess;
    }
    bool is_slow = !is_pinned(to_host ? to : from);
    if (is_slow && is_refused(stream, "copy of memory that is not pinned"))
        return cudaErrorStreamCaptureUnsupported;
    work(to_host ? d2h : h2d, where);
    if (is_slow)
        copy_pageable(stream, to, from, size, to_host);
    else if (!stream->capture)
        push_copy(stream, to, from, size, to_host);
    return cudaSuccess;
}

API cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    return copy(to, from, size, stream);
}

API cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind)
{
    cudaError_t error = copy(to, from, size, NULL);
    return error ? error : cudaStreamSynchronize(NULL);
}

API cudaError_t cudaMemcpyPeerAsync(void *to, int to_gpu, const void *from, int from_gpu, size_t size, cudaStream_t stream)
{
    return copy(to, from, size, stream);
}

API cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                                  size_t height, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t error = cudaSuccess;
    for (size_t row = 0; row < height && !error; row++)
        error = copy((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width, stream);
    return error;
}

API cudaError_t cudaMemsetAsync(void *memory, int value, size_t size, cudaStream_t stream)
{
    work(memsets, stream);
    return cudaSuccess;
}

API cudaError_t cudaMemset(void *memory, int value, size_t size)
{
    return cudaMemsetAsync(memory, value, size, NULL);
}
