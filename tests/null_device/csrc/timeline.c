/* Streams and events: when the host may rely on a copy.
 *
 * A stream is a queue of copies and of waits for other streams. On time (the default) an entry is done as soon as it is
 * pushed. Late (NULL_DEVICE_LATE=1) the device works only while the host waits for it: an entry is done when the host
 * waits for a moment after it, which first does what that moment's stream waits for. Until then the destination of a copy
 * to the host is poison; a source in pinned memory is read only then, and one that was changed meanwhile is `overwritten`.
 *
 * A program may also poll, and its polls must come true some time: PATIENCE operations after the entry was pushed. */
#include "null.h"
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PATIENCE = 4000 };

struct entry {
    struct entry *next;
    long pushed_at;
    struct moment awaited; /* a wait, where it has a stream; else a copy: */
    void *to;
    const void *from;
    size_t size;
    bool to_host;
    uint64_t checksum;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct stream default_streams[MAX_GPUS];
static struct stream *_Atomic streams; /* made by the program; never destroyed, so that events may go on naming them */

static _Atomic int lateness = -1; /* not asked yet */

static bool is_late(void)
{
    if (lateness < 0)
        lateness = is_on("NULL_DEVICE_LATE");
    return lateness;
}

/* For device.py: from now on. */
API void null_device_set_late(int late)
{
    reach_all();
    lateness = late;
}

/* ---- the queues (under the lock) */

/* FNV-1a over words: pixels of a batch are megabytes. */
static uint64_t checksum(const void *memory, size_t size)
{
    uint64_t sum = 0xcbf29ce484222325u, word;
    const unsigned char *byte = memory;
    for (; size >= sizeof word; size -= sizeof word, byte += sizeof word) {
        memcpy(&word, byte, sizeof word);
        sum = ((sum ^ word) * 0x100000001b3u) ^ (sum >> 31);
    }
    for (; size; size--)
        sum = (sum ^ *byte++) * 0x100000001b3u;
    return sum;
}

static void finish_copy(const struct entry *copy)
{
    if (copy->to_host) {
        read_back(copy->to, copy->from, copy->size);
        return;
    }
    if (is_late() && checksum(copy->from, copy->size) != copy->checksum) {
        count(overwritten);
        note("a pinned buffer was changed before the copy from it was waited for");
    }
    receive(copy->to, copy->from, copy->size);
}

static void advance(struct stream *stream, unsigned long position)
{
    while (stream->done < position) {
        struct entry *entry = stream->first;
        stream->first = entry->next;
        stream->done++;
        if (entry->awaited.stream)
            advance(entry->awaited.stream, entry->awaited.position);
        else
            finish_copy(entry);
        free(entry);
    }
}

static void push(struct stream *stream, struct entry entry)
{
    struct entry *kept = malloc(sizeof *kept);
    *kept = entry;
    kept->next = NULL;
    kept->pushed_at = num_ticks();
    if (stream->done == stream->pushed)
        stream->first = kept;
    else
        stream->last->next = kept;
    stream->last = kept;
    stream->pushed++;
    if (!is_late())
        advance(stream, stream->pushed);
}

void push_copy(struct stream *stream, void *to, const void *from, size_t size, bool to_host)
{
    struct entry copy = {.to = to, .from = from, .size = size, .to_host = to_host};
    pthread_mutex_lock(&lock);
    if (is_late() && to_host)
        memset(to, POISON_BYTE, size);
    if (is_late() && !to_host)
        copy.checksum = checksum(from, size);
    push(stream, copy);
    pthread_mutex_unlock(&lock);
}

static void reach_moment(struct moment moment)
{
    pthread_mutex_lock(&lock);
    advance(moment.stream, moment.position);
    pthread_mutex_unlock(&lock);
}

void reach(struct stream *stream)
{
    reach_moment((struct moment){stream, stream->pushed});
}

static void reach_one(struct stream *stream, void *context)
{
    reach(stream);
}

void reach_all(void)
{
    for_each_stream(reach_one, NULL);
}

/* What a poll finds. Where it is true the program may rely on it, so the entries are done. */
static bool has_reached(struct moment moment)
{
    struct stream *stream = moment.stream;
    count(event_queries);
    pthread_mutex_lock(&lock);
    struct entry *newest = stream->done < moment.position ? stream->first : NULL;
    for (unsigned long i = stream->done + 1; i < moment.position; i++)
        newest = newest->next;
    bool over = !newest || num_ticks() - newest->pushed_at > PATIENCE;
    if (over)
        advance(stream, moment.position);
    pthread_mutex_unlock(&lock);
    return over;
}

/* ---- streams */

void for_each_stream(void (*act)(struct stream *, void *), void *context)
{
    for (int gpu = 0; gpu < MAX_GPUS; gpu++)
        act(&default_streams[gpu], context);
    for (struct stream *stream = streams; stream; stream = stream->next)
        act(stream, context);
}

struct stream *stream_of(cudaStream_t handle)
{
    if (handle && handle != cudaStreamLegacy && handle != cudaStreamPerThread)
        return (struct stream *)handle;
    struct stream *stream = &default_streams[current_gpu()];
    stream->gpu = current_gpu();
    return stream;
}

API cudaError_t cudaStreamCreateWithPriority(cudaStream_t *handle, unsigned flags, int priority)
{
    struct stream *stream = calloc(1, sizeof *stream);
    stream->gpu = current_gpu();
    stream->priority = priority;
    pthread_mutex_lock(&lock);
    stream->next = streams;
    streams = stream;
    pthread_mutex_unlock(&lock);
    *handle = (cudaStream_t)stream;
    return cudaSuccess;
}

API cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned flags)
{
    return cudaStreamCreateWithPriority(handle, flags, 0);
}

API cudaError_t cudaStreamCreate(cudaStream_t *handle)
{
    return cudaStreamCreateWithPriority(handle, cudaStreamDefault, 0);
}

API cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority)
{
    *priority = stream_of(handle)->priority;
    return cudaSuccess;
}

API cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    struct stream *stream = stream_of(handle);
    if (is_refused(stream, "synchronisation of a stream") || is_unsafe("synchronisation of a stream"))
        return cudaErrorStreamCaptureUnsupported;
    count(syncs);
    note("synchronisation of a stream");
    reach(stream);
    return cudaSuccess;
}

API cudaError_t cudaDeviceSynchronize(void)
{
    if (is_unsafe("synchronisation of the device"))
        return cudaErrorStreamCaptureUnsupported;
    count(syncs);
    note("synchronisation of the device");
    reach_all();
    return cudaSuccess;
}

API cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    struct stream *stream = stream_of(handle);
    if (is_refused(stream, "query of a stream") || is_unsafe("query of a stream"))
        return cudaErrorStreamCaptureUnsupported;
    return has_reached((struct moment){stream, stream->pushed}) ? cudaSuccess : cudaErrorNotReady;
}

/* Host functions run at once: nothing that they could read late is theirs. */
API cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data)
{
    work(launches, stream);
    if (!stream_of(stream)->capture)
        function(data);
    return cudaSuccess;
}

API cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function, void *data, unsigned flags)
{
    function(stream, cudaSuccess, data);
    return cudaSuccess;
}

/* ---- events */

API cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned flags)
{
    *handle = calloc(1, sizeof(struct event));
    return cudaSuccess;
}

API cudaError_t cudaEventCreate(cudaEvent_t *handle)
{
    return cudaEventCreateWithFlags(handle, cudaEventDefault);
}

API cudaError_t cudaEventDestroy(cudaEvent_t handle)
{
    free(handle);
    return cudaSuccess;
}

API cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t where, unsigned flags)
{
    struct stream *stream = stream_of(where);
    *(struct event *)handle = (struct event){{stream, stream->pushed}, stream->capture, stream->recorded};
    return cudaSuccess;
}

API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

API cudaError_t cudaEventSynchronize(cudaEvent_t handle)
{
    struct event *event = (struct event *)handle;
    if (event->capture)
        return cudaErrorCapturedEvent;
    if (is_unsafe("wait for an event"))
        return cudaErrorStreamCaptureUnsupported;
    count(event_syncs);
    if (event->moment.stream)
        reach_moment(event->moment);
    return cudaSuccess;
}

API cudaError_t cudaEventQuery(cudaEvent_t handle)
{
    struct event *event = (struct event *)handle;
    if (event->capture)
        return cudaErrorCapturedEvent;
    if (is_unsafe("query of an event"))
        return cudaErrorStreamCaptureUnsupported;
    return !event->moment.stream || has_reached(event->moment) ? cudaSuccess : cudaErrorNotReady;
}

API cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    *ms = 1;
    return cudaSuccess;
}

API cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t awaited, unsigned flags)
{
    struct stream *stream = stream_of(handle);
    struct event *event = (struct event *)awaited;
    if (!event->moment.stream)
        return cudaSuccess;
    if (is_capturing(event->capture)) {
        join_capture(stream, event);
        return cudaSuccess;
    }
    if (flags != cudaEventWaitExternal && is_refused(stream, "wait of a captured stream for work outside its capture"))
        return cudaErrorStreamCaptureIsolation;
    count(stream_waits);
    pthread_mutex_lock(&lock);
    push(stream, (struct entry){.awaited = event->moment});
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}
