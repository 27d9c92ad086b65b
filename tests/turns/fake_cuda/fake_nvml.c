/* A fake libnvidia-ml.so.1: the cards, and which process of the fake driver holds how much of which. */
#include "fake_state.h"
#include <dirent.h>
#include <stdint.h>

typedef int nvmlReturn_t;
enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

_Static_assert(sizeof(nvmlMemory_v2_t) == 40 && sizeof(nvmlProcessInfo_t) == 24, "nvml.h 12.8");

static int users;

/* A handle is the card's index plus one. */
static int index_of(void *device)
{
    return (int)(intptr_t)device - 1;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    users++;
    return flags ? INVALID_ARGUMENT : SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlShutdown(void)
{
    if (!users) return UNINITIALIZED;
    users--;
    return SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t result)
{
    return result == INVALID_ARGUMENT ? "Invalid Argument" : result == NOT_SUPPORTED ? "Not Supported" : "Unknown Error";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *text, unsigned int size)
{
    char version[64];
    int cuda;
    if (!users) return UNINITIALIZED;
    read_driver(version, &cuda);
    snprintf(text, size, "%s", version);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    if (!users) return UNINITIALIZED;
    *count = (unsigned int)read_number("cards", 1);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device)
{
    if (!users) return UNINITIALIZED;
    if (index >= read_number("cards", 1)) return INVALID_ARGUMENT;
    *device = (void *)(intptr_t)(index + 1);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetName(void *device, char *name, unsigned int size)
{
    snprintf(name, size, "Fake card %d", index_of(device));
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(void *device, char *uuid, unsigned int size)
{
    snprintf(uuid, size, "GPU-00000000-0000-0000-0000-%012d", index_of(device));
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigMode(void *device, unsigned int *current, unsigned int *pending)
{
    if (index_of(device) > 0 && read_number("mig", -1) < 0) return NOT_SUPPORTED; /* as on cards without MIG */
    *current = *pending = read_number("mig", -1) == index_of(device);
    return SUCCESS;
}

/* The processes on a card, at most `room` of them; how many there are. */
static unsigned int list(int card, nvmlProcessInfo_t *into, unsigned int room, unsigned long long *used)
{
    char folder[4096];
    unsigned int count = 0;
    path_of(folder, "");
    DIR *open = opendir(folder);
    *used = card == 0 ? (unsigned long long)read_number("others", 0) : 0;
    for (struct dirent *entry; open && (entry = readdir(open));) {
        Process process;
        int pid = atoi(entry->d_name);
        if (pid <= 0 || strspn(entry->d_name, "0123456789") != strlen(entry->d_name)) continue;
        if (!read_process(pid, &process) || process.card != card || !process.gpu_bytes) continue;
        *used += process.gpu_bytes;
        if (read_number("hidden", 0)) continue;
        if (count < room) into[count] = (nvmlProcessInfo_t){(unsigned int)pid, process.gpu_bytes, 0, 0};
        count++;
    }
    if (open) closedir(open);
    return count;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(void *device, nvmlMemory_t *memory)
{
    unsigned long long used;
    list(index_of(device), NULL, 0, &used);
    *memory = (nvmlMemory_t){CARD_BYTES, CARD_BYTES - used, used};
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(void *device, nvmlMemory_v2_t *memory)
{
    unsigned long long used;
    if (memory->version != (sizeof *memory | 2u << 24)) return INVALID_ARGUMENT;
    list(index_of(device), NULL, 0, &used);
    *memory = (nvmlMemory_v2_t){memory->version, CARD_BYTES, 0, CARD_BYTES - used, used};
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, nvmlProcessInfo_t *processes)
{
    unsigned long long used;
    unsigned int room = *count;
    *count = list(index_of(device), processes, processes ? room : 0, &used);
    return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
}
