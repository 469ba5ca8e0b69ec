/* The peer of main.rs: the same loops on DPDK's rte_ring, TSC cycles an element (enqueue plus dequeue), after
 * ring_perf_autotest of dpdk-test. Answers one figure for each line "cores bytes sync bulk" on its standard input: cores 1
 * or 2, bytes of an element 8 or 16, sync 0 for SP/SC and 1 for MP/MC, bulk 0 for one element a call.
 * Built and run by `cargo bench -p polder-ring -- --peer`; needs libdpdk and its headers (Debian: libdpdk-dev). */
#include <stdio.h>
#include <stdlib.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_pause.h>
#include <rte_ring.h>
#include <rte_ring_elem.h>

/* As in main.rs. */
#define SLOTS 4096
#define ALONE (1 << 18)
#define PAIRED (1 << 20)
#define MAX_BULK 128

struct side {
	struct rte_ring *ring;
	unsigned bulk;
	unsigned *ready;
	uint64_t cycles;
};

typedef uint64_t alone_loop(struct rte_ring *ring, unsigned bulk, unsigned calls);

static __rte_noinline void opaque(void *p)
{
	asm volatile("" : : "r"(p) : "memory");
}

static void meet(unsigned *ready)
{
	__atomic_fetch_add(ready, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(ready, __ATOMIC_ACQUIRE) < 2)
		rte_pause();
}

/* The element's size and the kind of ring are constants to each loop, the bulk is not. */
#define LOOPS(name, bytes, p, c)                                                                       \
static uint64_t alone_##name(struct rte_ring *ring, unsigned bulk, unsigned calls)                     \
{                                                                                                      \
	char src[MAX_BULK * bytes] __rte_cache_aligned = {0}, dst[MAX_BULK * bytes] __rte_cache_aligned; \
	uint64_t start = rte_rdtsc();                                                                  \
	for (unsigned i = 0; i < calls; i++) {                                                         \
		opaque(src);                                                                           \
		rte_ring_##p##_enqueue_bulk_elem(ring, src, bytes, bulk, NULL);                        \
		opaque(dst);                                                                           \
		rte_ring_##c##_dequeue_bulk_elem(ring, dst, bytes, bulk, NULL);                        \
	}                                                                                              \
	return rte_rdtsc() - start;                                                                    \
}                                                                                                      \
static uint64_t single_##name(struct rte_ring *ring, unsigned bulk, unsigned calls)                    \
{                                                                                                      \
	char src[bytes] __rte_cache_aligned = {0}, dst[bytes] __rte_cache_aligned;                     \
	uint64_t start = rte_rdtsc();                                                                  \
	for (unsigned i = 0; i < calls; i++) {                                                         \
		opaque(src);                                                                           \
		rte_ring_##p##_enqueue_elem(ring, src, bytes);                                         \
		rte_ring_##c##_dequeue_elem(ring, dst, bytes);                                         \
		opaque(dst);                                                                           \
	}                                                                                              \
	(void)bulk;                                                                                    \
	return rte_rdtsc() - start;                                                                    \
}                                                                                                      \
static int enqueue_##name(void *arg)                                                                   \
{                                                                                                      \
	struct side *side = arg;                                                                       \
	char src[MAX_BULK * bytes] __rte_cache_aligned = {0};                                          \
	meet(side->ready);                                                                             \
	uint64_t start = rte_rdtsc();                                                                  \
	for (unsigned i = 0; i < PAIRED / side->bulk; i++)                                             \
		while (rte_ring_##p##_enqueue_bulk_elem(side->ring, src, bytes, side->bulk, NULL) == 0)\
			rte_pause();                                                                   \
	side->cycles = rte_rdtsc() - start;                                                            \
	return 0;                                                                                      \
}                                                                                                      \
static int dequeue_##name(void *arg)                                                                   \
{                                                                                                      \
	struct side *side = arg;                                                                       \
	char dst[MAX_BULK * bytes] __rte_cache_aligned;                                                \
	meet(side->ready);                                                                             \
	uint64_t start = rte_rdtsc();                                                                  \
	for (unsigned i = 0; i < PAIRED / side->bulk; i++)                                             \
		while (rte_ring_##c##_dequeue_bulk_elem(side->ring, dst, bytes, side->bulk, NULL) == 0)\
			rte_pause();                                                                   \
	side->cycles = rte_rdtsc() - start;                                                            \
	opaque(dst);                                                                                   \
	return 0;                                                                                      \
}

LOOPS(sp_sc_8, 8, sp, sc)
LOOPS(mp_mc_8, 8, mp, mc)
LOOPS(sp_sc_16, 16, sp, sc)
LOOPS(mp_mc_16, 16, mp, mc)

#define BY_KIND(f) { { f##_sp_sc_8, f##_sp_sc_16 }, { f##_mp_mc_8, f##_mp_mc_16 } }
static alone_loop *const ALONE_LOOPS[2][2] = BY_KIND(alone), *const SINGLE_LOOPS[2][2] = BY_KIND(single);
static lcore_function_t *const ENQUEUE[2][2] = BY_KIND(enqueue), *const DEQUEUE[2][2] = BY_KIND(dequeue);

/* One lap first: the ring's lines are in the core's cache, as they are after any use. */
static double alone(struct rte_ring *ring, int wide, int sync, unsigned bulk)
{
	unsigned size = bulk ? bulk : 1;
	alone_loop *loop = (bulk ? ALONE_LOOPS : SINGLE_LOOPS)[sync][wide];

	loop(ring, size, SLOTS / size);
	return (double)loop(ring, size, ALONE / size) / (ALONE / size * size);
}

static double paired(struct rte_ring *ring, int wide, int sync, unsigned bulk)
{
	unsigned ready = 0, other = rte_get_next_lcore(-1, 1, 0);
	struct side tx = { ring, bulk, &ready, 0 }, rx = { ring, bulk, &ready, 0 };

	rte_eal_remote_launch(DEQUEUE[sync][wide], &rx, other);
	ENQUEUE[sync][wide](&tx);
	rte_eal_wait_lcore(other);
	return (double)(tx.cycles + rx.cycles) / (PAIRED / bulk * bulk);
}

int main(int argc, char **argv)
{
	unsigned cores, bytes, sync, bulk;

	if (rte_eal_init(argc, argv) < 0)
		return 1;
	struct rte_ring *rings[2] = {
		rte_ring_create_elem("narrow", 8, SLOTS, SOCKET_ID_ANY, 0),
		rte_ring_create_elem("wide", 16, SLOTS, SOCKET_ID_ANY, 0),
	};
	if (!rings[0] || !rings[1])
		return 1;
	while (scanf("%u %u %u %u", &cores, &bytes, &sync, &bulk) == 4 && sync < 2 && bulk <= MAX_BULK) {
		int wide = bytes == 16;

		printf("%.4f\n", (cores == 2 ? paired : alone)(rings[wide], wide, sync, bulk));
		fflush(stdout);
	}
	return 0;
}
