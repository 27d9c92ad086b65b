/* Threads that wait for work: run() calls task(argument, item) once for each item, on all of them, and returns
 * when every item is done. Items are taken from one atomic counter, so which thread does which is left to
 * chance: tasks write only what belongs to their item, and then results do not depend on the threads. */
#ifndef SPLAT_POOL_H
#define SPLAT_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef void (*task_function)(void *argument, int item);

typedef struct {
    int workers; /* besides the calling thread */
    pthread_t *threads;
    pthread_mutex_t mutex;
    pthread_cond_t start, finish;
    unsigned long round;
    int busy, stopping;
    task_function task;
    void *argument;
    int items;
    atomic_int next;
} pool;

static void pool_take(pool *p) {
    for (;;) {
        int item = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (item >= p->items) return;
        p->task(p->argument, item);
    }
}

static void *pool_worker(void *argument) {
    pool *p = argument;
    unsigned long seen = 0;
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (p->round == seen && !p->stopping) pthread_cond_wait(&p->start, &p->mutex);
        if (p->stopping) break;
        seen = p->round;
        pthread_mutex_unlock(&p->mutex);
        pool_take(p);
        pthread_mutex_lock(&p->mutex);
        if (--p->busy == 0) pthread_cond_signal(&p->finish);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

static void pool_run(pool *p, task_function task, void *argument, int items) {
    if (p->workers == 0 || items <= 1) {
        for (int i = 0; i < items; i++) task(argument, i);
        return;
    }
    pthread_mutex_lock(&p->mutex);
    p->task = task;
    p->argument = argument;
    p->items = items;
    atomic_store(&p->next, 0);
    p->busy = p->workers;
    p->round++;
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->mutex);
    pool_take(p);
    pthread_mutex_lock(&p->mutex);
    while (p->busy) pthread_cond_wait(&p->finish, &p->mutex);
    pthread_mutex_unlock(&p->mutex);
}

/* With fewer threads than asked where the system gives no more. */
static void pool_open(pool *p, int threads) {
    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->start, NULL);
    pthread_cond_init(&p->finish, NULL);
    p->threads = threads > 1 ? malloc((size_t)(threads - 1) * sizeof *p->threads) : NULL;
    for (int i = 0; p->threads && i < threads - 1; i++) {
        if (pthread_create(&p->threads[i], NULL, pool_worker, p)) break;
        p->workers++;
    }
}

static void pool_close(pool *p) {
    pthread_mutex_lock(&p->mutex);
    p->stopping = 1;
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->mutex);
    for (int i = 0; i < p->workers; i++) pthread_join(p->threads[i], NULL);
    free(p->threads);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->start);
    pthread_cond_destroy(&p->finish);
}

#endif
