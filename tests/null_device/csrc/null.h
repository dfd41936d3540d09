/* What the files of the null device share.
 *
 * The device is a driver, a CUDA runtime, cuBLAS and cuDNN in one library, preloaded, with libcuda.so.1 for its name.
 * It computes nothing, so what is read from it is bytes of READ_BYTE, unless the host itself has just sent the bytes. What
 * it knows is order: which operation was asked for, on which stream, inside which capture, and for what the host has
 * waited. */
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#define API __attribute__((visibility("default")))

/* device.py says what each one counts; those up to d2d may change memory of the device. */
#define COUNTERS(X)                                                                                    \
    X(launches) X(triton) X(gemms) X(dnn) X(memsets) X(d2d) X(h2d) X(d2h) X(pageable)                  \
    X(syncs) X(event_syncs) X(event_queries) X(stream_waits) X(mallocs) X(host_allocs) X(frees)        \
    X(captured) X(graph_launches) X(replayed) X(refused) X(overwritten)

enum counter {
#define X(name) name,
    COUNTERS(X)
#undef X
    NUM_COUNTERS
};

/* True, one, and a small normal number in float16, bfloat16, float32 and float64 (1.5e-5, 2.4e-38, 2.4e-38, 7.7e-304). */
enum { READ_BYTE = 0x01 };
/* NaN in all of them, -1 in integers: what a copy that has not arrived looks like. */
enum { POISON_BYTE = 0xFF };
enum { MAX_GPUS = 8 };

struct capture;

struct stream {
    int gpu, priority;
    struct capture *capture;    /* the graph that its work goes to; NULL: it is run */
    unsigned long pushed, done; /* transfers and waits: asked for, and known to be over */
    struct entry *first, *last; /* those between the two */
    unsigned long recorded, joined; /* in its capture: its operations, and those that another of its streams waits for */
    struct stream *next;
};

/* After the first `position` entries of a stream. */
struct moment {
    struct stream *stream;
    unsigned long position;
};

struct event {
    struct moment moment; /* without a stream: never recorded */
    struct capture *capture;
    unsigned long recorded;
};

struct handle { /* of cuBLAS or cuDNN: all that matters is where its work goes */
    cudaStream_t stream;
};

/* ledger.c */
void count(enum counter which);
long num_ticks(void);   /* the device's clock: operations and polls so far */
long num_changes(void); /* operations that may have changed memory of the device */
void note(const char *what);
bool is_on(const char *variable);

/* launch.c */
int num_gpus(void);
int current_gpu(void);

/* timeline.c */
struct stream *stream_of(cudaStream_t handle);
void for_each_stream(void (*act)(struct stream *, void *), void *context);
void push_copy(struct stream *stream, void *to, const void *from, size_t size, bool to_host);
void reach(struct stream *stream); /* the host has waited for all that the stream was asked for */
void reach_all(void);

/* memory.c */
void receive(void *to, const void *from, size_t size);
void read_back(void *to, const void *from, size_t size);

/* graph.c */
void work(enum counter which, cudaStream_t where); /* one operation: launched, or recorded into a graph */
bool is_refused(struct stream *stream, const char *what);
bool is_unsafe(const char *what);
void join_capture(struct stream *stream, struct event *event);
bool is_capturing(const struct capture *capture);
