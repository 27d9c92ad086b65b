/* What the fake driver and the fake NVML share: one small file per CUDA process in the folder $FAKE_CUDA_DIR.
 *
 *   <pid>   "state gpu_bytes saved_bytes card": what a process that uses CUDA has, and where it stands
 *   calls   one line per checkpoint call, in order: "lock 123"
 *
 * A test changes what happens by writing one of these:
 *
 *   driver            "570.86.10 12080": the driver's version and CUDA's
 *   cards             how many there are (1); each has 16 GiB
 *   mig               the index of the card with MIG enabled
 *   others            bytes of card 0 that some unrelated program holds
 *   busy              a pid whose GPU work never ends: locking it takes the whole timeout
 *   hang              "pid peer": locking pid ignores its timeout while peer isn't running, as NCCL's ranks do
 *   fail_checkpoint   a pid whose checkpoint fails
 *   fail_restore      while it is there, every restore fails
 *   ending            a pid that ends while it is being locked
 *   leaky             a pid whose checkpoint leaves its memory in use
 *   slow              milliseconds that every checkpoint takes
 *   hidden            NVML lists no process, as in a container with process ids of its own
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define CARD_BYTES (16ULL << 30)

typedef struct {
    int state;
    unsigned long long gpu_bytes, saved_bytes;
    int card;
} Process;

static void path_of(char *path, const char *name)
{
    const char *folder = getenv("FAKE_CUDA_DIR");
    snprintf(path, 4096, "%s/%s", folder ? folder : "/nonexistent", name);
}

/* The text of a file, "" where there is none. */
static void read_text(const char *name, char *text, size_t size)
{
    char path[4096];
    path_of(path, name);
    FILE *file = fopen(path, "r");
    size_t length = file ? fread(text, 1, size - 1, file) : 0;
    text[length] = 0;
    if (file) fclose(file);
}

static long long read_number(const char *name, long long otherwise)
{
    char text[64];
    read_text(name, text, sizeof text);
    return text[0] ? atoll(text) : otherwise;
}

static void read_driver(char *version, int *cuda)
{
    char text[128];
    read_text("driver", text, sizeof text);
    if (sscanf(text, "%63s %d", version, cuda) != 2) {
        strcpy(version, "570.86.10");
        *cuda = 12080;
    }
}

/* Whether a process lives; what is left of one until its parent has asked for its status holds nothing any more. */
static int lives(int pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end && name_end[1] && name_end[2] != 'Z' && name_end[2] != 'X';
}

/* Whether this process id is a living one that uses CUDA. */
static int read_process(int pid, Process *process)
{
    char name[32], text[128];
    snprintf(name, sizeof name, "%d", pid);
    read_text(name, text, sizeof text);
    if (sscanf(text, "%d %llu %llu %d", &process->state, &process->gpu_bytes, &process->saved_bytes, &process->card) != 4)
        return 0;
    return lives(pid);
}
