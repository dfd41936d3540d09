/* What was asked of the device, in numbers; and, with NULL_DEVICE_TRACE=1, in words on stderr. */
#include "null.h"
#include <stdio.h>
#include <stdlib.h>

static _Atomic long counts[NUM_COUNTERS];
static _Atomic long ticks, changes;

void count(enum counter which)
{
    counts[which]++;
    ticks++;
    changes += which <= d2d;
}

long num_changes(void)
{
    return changes;
}

long num_ticks(void)
{
    return ticks;
}

bool is_on(const char *variable)
{
    const char *value = getenv(variable);
    return value && *value && *value != '0';
}

void note(const char *what)
{
    if (is_on("NULL_DEVICE_TRACE"))
        fprintf(stderr, "[null device] %s\n", what);
}

/* "name=value " for each counter, at most `size` bytes; for device.py. */
API void null_device_report(char *text, size_t size)
{
    static const char *const names[] = {
#define X(name) #name,
        COUNTERS(X)
#undef X
    };
    for (int i = 0, used = 0; i < NUM_COUNTERS; i++)
        used += snprintf(text + used, size - used, "%s=%ld ", names[i], counts[i]);
}
