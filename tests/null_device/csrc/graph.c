/* Captures and CUDA graphs. A graph is a number of operations; a launch of it replays that number. */
#include "null.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct graph {
    _Atomic long num_nodes;
};

struct capture {
    unsigned long long id;
    struct graph *graph;
    struct stream *origin;
    enum cudaStreamCaptureMode mode;
    pthread_t thread;
    bool active, broken;
    struct capture *next;
};

static struct capture *_Atomic captures; /* never freed: events may still name them */
static _Thread_local enum cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

void work(enum counter which, cudaStream_t where)
{
    struct stream *stream = stream_of(where);
    count(stream->capture ? captured : which);
    if (!stream->capture)
        return;
    stream->capture->graph->num_nodes++;
    stream->recorded++;
}

/* ---- what a capture forbids: it is broken by the attempt, as on hardware */

static void refuse(struct capture *capture, const char *what)
{
    count(refused);
    note("refused in a capture:");
    note(what);
    capture->broken = true;
}

/* Whether `stream` is being captured, where no work may be waited for. */
bool is_refused(struct stream *stream, const char *what)
{
    if (stream->capture)
        refuse(stream->capture, what);
    return stream->capture;
}

/* Whether this thread may not make an unsafe call, see cudaThreadExchangeStreamCaptureMode. */
static bool forbids(const struct capture *capture)
{
    if (!capture->active || thread_mode == cudaStreamCaptureModeRelaxed)
        return false;
    if (pthread_equal(capture->thread, pthread_self()))
        return capture->mode != cudaStreamCaptureModeRelaxed;
    return capture->mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal;
}

/* Whether a capture, be it another thread's, forbids what might touch its memory or wait for its work. */
bool is_unsafe(const char *what)
{
    bool unsafe = false;
    for (struct capture *capture = captures; capture; capture = capture->next)
        if (forbids(capture)) {
            refuse(capture, what);
            unsafe = true;
        }
    return unsafe;
}

API cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode)
{
    enum cudaStreamCaptureMode before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return cudaSuccess;
}

/* ---- captures */

bool is_capturing(const struct capture *capture)
{
    return capture && capture->active;
}

/* A stream that waits for a captured event is captured too, and brings the event's stream home. */
void join_capture(struct stream *stream, struct event *event)
{
    struct stream *other = event->moment.stream;
    if (!stream->capture)
        stream->recorded = stream->joined = 0;
    stream->capture = event->capture;
    stream->recorded += other != stream;
    if (other->joined < event->recorded)
        other->joined = event->recorded;
}

static cudaError_t begin(cudaStream_t handle, struct graph *graph, enum cudaStreamCaptureMode mode)
{
    static _Atomic unsigned long long last_id;
    struct stream *stream = stream_of(handle);
    if ((cudaStream_t)stream != handle) /* a default stream */
        return cudaErrorStreamCaptureUnsupported;
    if (stream->capture)
        return cudaErrorIllegalState;
    struct capture *capture = calloc(1, sizeof *capture);
    *capture = (struct capture){++last_id, graph, stream, mode, pthread_self(), true, false, captures};
    captures = capture;
    stream->capture = capture;
    return cudaSuccess;
}

API cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    return begin(stream, calloc(1, sizeof(struct graph)), mode);
}

API cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t *dependencies,
                                              const cudaGraphEdgeData *data, size_t num, enum cudaStreamCaptureMode mode)
{
    return begin(stream, (struct graph *)graph, mode);
}

static void leave(struct stream *stream, void *context)
{
    struct capture *capture = context;
    if (stream->capture != capture)
        return;
    if (stream != capture->origin && stream->joined < stream->recorded)
        refuse(capture, "a stream was not joined with that in which the capture began");
    stream->capture = NULL;
}

API cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph)
{
    struct capture *capture = stream_of(handle)->capture;
    if (!capture)
        return cudaErrorIllegalState;
    for_each_stream(leave, capture);
    capture->active = false;
    *graph = capture->broken ? NULL : (cudaGraph_t)capture->graph;
    return capture->broken ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}

static enum cudaStreamCaptureStatus status_of(const struct capture *capture)
{
    if (!capture)
        return cudaStreamCaptureStatusNone;
    return capture->broken ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
}

API cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    *status = status_of(stream_of(stream)->capture);
    return cudaSuccess;
}

API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                         cudaGraph_t *graph, const cudaGraphNode_t **dependencies,
                                         const cudaGraphEdgeData **data, size_t *num)
{
    struct capture *capture = stream_of(stream)->capture;
    *status = status_of(capture);
    if (id)
        *id = capture ? capture->id : 0;
    if (graph)
        *graph = capture ? (cudaGraph_t)capture->graph : NULL;
    if (dependencies)
        *dependencies = NULL;
    if (data)
        *data = NULL;
    if (num)
        *num = 0;
    return cudaSuccess;
}

/* ---- graphs; one that is instantiated is the same number */

API cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *num)
{
    if (nodes)
        memset(nodes, 0, *num * sizeof *nodes);
    *num = ((struct graph *)graph)->num_nodes;
    return cudaSuccess;
}

API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags)
{
    struct graph *copy = malloc(sizeof *copy);
    copy->num_nodes = ((struct graph *)graph)->num_nodes;
    *executable = (cudaGraphExec_t)copy;
    return cudaSuccess;
}

API cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
    work(graph_launches, stream);
    for (long node = ((struct graph *)executable)->num_nodes; node; node--)
        count(replayed);
    return cudaSuccess;
}
