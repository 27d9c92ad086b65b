/* Threads that wait for work: run() calls task(argument, item, thread) once for each item, on all of them, and
 * returns when every item is done. Items are taken from one atomic counter, so which thread does which is left to
 * chance: tasks write only what belongs to their item (or scratch memory of their thread), and then results do
 * not depend on the threads.
 *
 * A step has a dozen rounds of work, and waking a sleeping thread takes as long as some of them, so who waits
 * looks at the counter for a while before it sleeps. */
#ifndef SPLAT_POOL_H
#define SPLAT_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

#define SPINS 4000 /* about 50 µs; a thread on another's core is kept from it no longer than that */

typedef void (*task_function)(void *argument, int item, int thread);

struct pool;

typedef struct {
    struct pool *pool;
    int thread;
} pool_seat;

typedef struct pool {
    int workers; /* besides the calling thread, which is thread 0 */
    pthread_t *threads;
    pool_seat *seats;
    pthread_mutex_t mutex;
    pthread_cond_t start, finish;
    atomic_ulong round;
    atomic_int busy, next;
    int stopping;
    task_function task;
    void *argument;
    int items;
} pool;

/* Numbers below 1e-38 count as 0: processors take a hundred cycles over one, and none matters here. */
static uint64_t flush_denormals(void) {
#if defined(__x86_64__)
    uint64_t before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr((unsigned)before | 0x8040);
    return before;
#elif defined(__aarch64__)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | (uint64_t)1 << 24));
    return before;
#else
    return 0;
#endif
}

static void restore_denormals(uint64_t before) {
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr((unsigned)before);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
#else
    (void)before;
#endif
}

static void pool_take(pool *p, int thread) {
    for (;;) {
        int item = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (item >= p->items) return;
        p->task(p->argument, item, thread);
    }
}

static void *pool_worker(void *argument) {
    const pool_seat *seat = argument;
    pool *p = seat->pool;
    unsigned long seen = 0;
    flush_denormals();
    for (;;) {
        int spins = 0;
        while (atomic_load_explicit(&p->round, memory_order_acquire) == seen && spins++ < SPINS) PAUSE();
        if (atomic_load_explicit(&p->round, memory_order_acquire) == seen) {
            pthread_mutex_lock(&p->mutex);
            while (atomic_load(&p->round) == seen) pthread_cond_wait(&p->start, &p->mutex);
            pthread_mutex_unlock(&p->mutex);
        }
        seen++;
        if (p->stopping) return NULL;
        pool_take(p, seat->thread);
        if (atomic_fetch_sub_explicit(&p->busy, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&p->mutex);
            pthread_cond_signal(&p->finish);
            pthread_mutex_unlock(&p->mutex);
        }
    }
}

static void pool_start(pool *p) {
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->busy, p->workers);
    atomic_store(&p->next, 0);
    atomic_fetch_add_explicit(&p->round, 1, memory_order_release);
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->mutex);
}

static void pool_run(pool *p, task_function task, void *argument, int items) {
    if (p->workers == 0 || items <= 1) {
        for (int i = 0; i < items; i++) task(argument, i, 0);
        return;
    }
    p->task = task;
    p->argument = argument;
    p->items = items;
    pool_start(p);
    pool_take(p, 0);
    int spins = 0;
    while (atomic_load_explicit(&p->busy, memory_order_acquire) && spins++ < SPINS) PAUSE();
    if (atomic_load_explicit(&p->busy, memory_order_acquire)) {
        pthread_mutex_lock(&p->mutex);
        while (atomic_load(&p->busy)) pthread_cond_wait(&p->finish, &p->mutex);
        pthread_mutex_unlock(&p->mutex);
    }
}

/* With fewer threads than asked where the system gives no more. */
static void pool_open(pool *p, int threads) {
    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->start, NULL);
    pthread_cond_init(&p->finish, NULL);
    if (threads < 2) return;
    p->threads = malloc((size_t)(threads - 1) * sizeof *p->threads);
    p->seats = malloc((size_t)(threads - 1) * sizeof *p->seats);
    for (int i = 0; p->threads && p->seats && i < threads - 1; i++) {
        p->seats[i] = (pool_seat){p, i + 1};
        if (pthread_create(&p->threads[i], NULL, pool_worker, &p->seats[i])) break;
        p->workers++;
    }
}

static void pool_close(pool *p) {
    p->stopping = 1;
    pool_start(p);
    for (int i = 0; i < p->workers; i++) pthread_join(p->threads[i], NULL);
    free(p->threads);
    free(p->seats);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->start);
    pthread_cond_destroy(&p->finish);
}

#endif
