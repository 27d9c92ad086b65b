/* A fake libcuda.so.1: enough of the driver to start, to hold memory, and to be checkpointed.
 *
 * Layouts, names and error numbers are those of cuda.h 12.8. The state machine is the driver's: running → locked →
 * checkpointed → locked → running, and whoever calls CUDA in a process that isn't running waits until it is.
 */
#include "fake_state.h"
#include <stdint.h>
#include <time.h>

typedef int CUresult;
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    OPERATING_SYSTEM = 304,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    NOT_SUPPORTED = 801,
};
enum { RUNNING, LOCKED, CHECKPOINTED };

typedef struct {
    unsigned int timeoutMs;
    unsigned int reserved0;
    uint64_t reserved1[7];
} CUcheckpointLockArgs;

typedef struct {
    uint64_t reserved[8];
} CUcheckpointOtherArgs;

_Static_assert(sizeof(CUcheckpointLockArgs) == 64, "cuda.h 12.8");
_Static_assert(sizeof(CUcheckpointOtherArgs) == 64, "cuda.h 12.8");

static int initialised;

static void sleep_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static int enter(void)
{
    char path[4096];
    path_of(path, ".lock");
    int lock = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (lock >= 0) flock(lock, LOCK_EX);
    return lock;
}

static CUresult leave(int lock, CUresult result)
{
    if (lock >= 0) close(lock);
    return result;
}

static void write_process(int pid, const Process *process)
{
    char name[32], path[4096], aside[4200];
    snprintf(name, sizeof name, "%d", pid);
    path_of(path, name);
    snprintf(aside, sizeof aside, "%s.new", path);
    FILE *file = fopen(aside, "w");
    if (!file) return;
    fprintf(file, "%d %llu %llu %d", process->state, process->gpu_bytes, process->saved_bytes, process->card);
    fclose(file);
    rename(aside, path);
}

static void note(const char *call, int pid)
{
    char path[4096];
    path_of(path, "calls");
    FILE *file = fopen(path, "a");
    if (!file) return;
    fprintf(file, "%s %d\n", call, pid);
    fclose(file);
}

static int all_zero(const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (((const unsigned char *)bytes)[i]) return 0;
    return 1;
}

CUresult cuInit(unsigned int flags)
{
    initialised = 1;
    return flags ? INVALID_VALUE : SUCCESS;
}

CUresult cuDriverGetVersion(int *version)
{
    char name[64];
    read_driver(name, version);
    return SUCCESS;
}

CUresult cuCtxSynchronize(void)
{
    Process process;
    /* Without the lock: whoever waits here may be frozen, and would keep it from all others. */
    for (;;) {
        if (!read_process(getpid(), &process)) return NOT_INITIALIZED;
        if (process.state == RUNNING) return SUCCESS;
        sleep_ms(5);
    }
}

/* Which card, a real program says with cuCtxCreate; here it is $FAKE_CUDA_CARD. */
CUresult cuMemAlloc_v2(unsigned long long *pointer, size_t bytes)
{
    const char *card = getenv("FAKE_CUDA_CARD");
    if (!initialised) return NOT_INITIALIZED;
    int lock = enter();
    Process process = {RUNNING, 0, 0, card ? atoi(card) : 0};
    read_process(getpid(), &process);
    process.gpu_bytes += bytes;
    write_process(getpid(), &process);
    *pointer = 0x7f0000000000ULL;
    return leave(lock, SUCCESS);
}

CUresult cuCheckpointProcessGetState(int pid, int *state)
{
    Process process;
    if (!initialised) return NOT_INITIALIZED;
    if (!read_process(pid, &process)) return INVALID_VALUE;
    *state = process.state;
    return SUCCESS;
}

CUresult cuCheckpointProcessLock(int pid, const CUcheckpointLockArgs *args)
{
    Process process;
    if (!initialised) return NOT_INITIALIZED;
    if (args && (args->reserved0 || !all_zero(args->reserved1, sizeof args->reserved1))) return INVALID_VALUE;
    if (read_number("busy", 0) == pid) {
        note("lock", pid);
        if (!args || !args->timeoutMs) pause();
        sleep_ms(args->timeoutMs);
        return NOT_READY;
    }
    char text[64];
    int hanging = 0, peer = 0;
    read_text("hang", text, sizeof text);
    while (sscanf(text, "%d %d", &hanging, &peer) == 2 && hanging == pid && read_process(peer, &process) &&
           process.state != RUNNING)
        sleep_ms(5);
    if (read_number("ending", 0) == pid) {
        kill(pid, SIGKILL);
        while (read_process(pid, &process)) sleep_ms(5);
    }
    int lock = enter();
    note("lock", pid);
    if (!read_process(pid, &process)) return leave(lock, INVALID_VALUE);
    if (process.state != RUNNING) return leave(lock, ILLEGAL_STATE);
    process.state = LOCKED;
    write_process(pid, &process);
    return leave(lock, SUCCESS);
}

CUresult cuCheckpointProcessCheckpoint(int pid, const CUcheckpointOtherArgs *args)
{
    Process process;
    if (!initialised) return NOT_INITIALIZED;
    if (args && !all_zero(args, sizeof *args)) return INVALID_VALUE;
    sleep_ms((long)read_number("slow", 0));
    int lock = enter();
    note("checkpoint", pid);
    if (!read_process(pid, &process)) return leave(lock, INVALID_VALUE);
    if (process.state != LOCKED) return leave(lock, ILLEGAL_STATE);
    if (read_number("fail_checkpoint", 0) == pid) return leave(lock, NOT_SUPPORTED);
    process.state = CHECKPOINTED;
    process.saved_bytes = process.gpu_bytes;
    if (read_number("leaky", 0) != pid) process.gpu_bytes = 0;
    write_process(pid, &process);
    return leave(lock, SUCCESS);
}

/* A restore that found no room spoils the process for good, as the real driver's does (NVIDIA/cuda-checkpoint#44). */
CUresult cuCheckpointProcessRestore(int pid, const CUcheckpointOtherArgs *args)
{
    Process process;
    char spoilt[32];
    if (!initialised) return NOT_INITIALIZED;
    if (args && !all_zero(args, sizeof *args)) return INVALID_VALUE;
    int lock = enter();
    note("restore", pid);
    if (!read_process(pid, &process)) return leave(lock, INVALID_VALUE);
    if (process.state != CHECKPOINTED) return leave(lock, ILLEGAL_STATE);
    snprintf(spoilt, sizeof spoilt, "%d.spoilt", pid);
    if (read_number(spoilt, 0) || read_number("fail_restore", 0)) return leave(lock, OPERATING_SYSTEM);
    if (process.card == 0 && read_number("others", 0) + process.saved_bytes > CARD_BYTES) {
        char path[4096];
        path_of(path, spoilt);
        FILE *file = fopen(path, "w");
        if (file) fprintf(file, "1"), fclose(file);
        return leave(lock, OUT_OF_MEMORY);
    }
    process.state = LOCKED;
    process.gpu_bytes = process.saved_bytes;
    write_process(pid, &process);
    return leave(lock, SUCCESS);
}

CUresult cuCheckpointProcessUnlock(int pid, const CUcheckpointOtherArgs *args)
{
    Process process;
    if (!initialised) return NOT_INITIALIZED;
    if (args && !all_zero(args, sizeof *args)) return INVALID_VALUE;
    int lock = enter();
    note("unlock", pid);
    if (!read_process(pid, &process)) return leave(lock, INVALID_VALUE);
    if (process.state != LOCKED) return leave(lock, ILLEGAL_STATE);
    process.state = RUNNING;
    write_process(pid, &process);
    return leave(lock, SUCCESS);
}

/* How cuda-bindings finds everything else. A driver knows what its CUDA version has, asked for that version or later. */
CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
    static const struct {
        const char *name;
        void *function;
        int since;
    } all[] = {
        {"cuInit", cuInit, 2000},
        {"cuDriverGetVersion", cuDriverGetVersion, 2020},
        {"cuMemAlloc", cuMemAlloc_v2, 3020},
        {"cuCtxSynchronize", cuCtxSynchronize, 2000},
        {"cuGetProcAddress", cuGetProcAddress_v2, 12000},
        {"cuCheckpointProcessGetState", cuCheckpointProcessGetState, 12080},
        {"cuCheckpointProcessLock", cuCheckpointProcessLock, 12080},
        {"cuCheckpointProcessCheckpoint", cuCheckpointProcessCheckpoint, 12080},
        {"cuCheckpointProcessRestore", cuCheckpointProcessRestore, 12080},
        {"cuCheckpointProcessUnlock", cuCheckpointProcessUnlock, 12080},
    };
    int driver;
    (void)flags;
    cuDriverGetVersion(&driver);
    *function = NULL;
    if (status) *status = 1; /* CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND */
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, name) && all[i].since <= driver && all[i].since <= version) {
            *function = all[i].function;
            if (status) *status = 0;
            return SUCCESS;
        }
    return NOT_FOUND;
}

CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags)
{
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
