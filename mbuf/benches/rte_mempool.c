/* The peer of benches/cycles.rs: the same loops on DPDK's rte_mempool and rte_mbuf, TSC cycles an element.
 * The loop is mempool_perf_autotest's (dpdk-test): take KEEP elements in bulks, give them back in bulks.
 * Built and run by `cargo bench -p polder-mbuf -- --peer`; needs libdpdk and its headers (Debian: dpdk-dev). */
#include <stdio.h>
#include <stdlib.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#define KEEP 128
#define TURNS 200
#define SAMPLES 101

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static __rte_always_inline void mempool_turn(struct rte_mempool *pool, unsigned n)
{
	void *kept[KEEP];
	unsigned i;

	for (i = 0; i < KEEP; i += n)
		if (rte_mempool_get_bulk(pool, &kept[i], n) < 0)
			exit(1);
	for (i = 0; i < KEEP; i += n)
		rte_mempool_put_bulk(pool, &kept[i], n);
}

static __rte_always_inline void mbuf_turn(struct rte_mempool *pool, unsigned n)
{
	struct rte_mbuf *kept[KEEP];
	unsigned i;

	for (i = 0; i < KEEP; i += n)
		if (rte_pktmbuf_alloc_bulk(pool, &kept[i], n) < 0)
			exit(1);
	for (i = 0; i < KEEP; i += n)
		rte_pktmbuf_free_bulk(&kept[i], n);
}

#define ROW(name, turn, pool, n) do {                                          \
	double sample[SAMPLES];                                                \
	for (int s = 0; s < SAMPLES; s++) {                                    \
		uint64_t start = rte_rdtsc_precise();                          \
		for (int t = 0; t < TURNS; t++)                                \
			turn(pool, n);                                         \
		sample[s] = (double)(rte_rdtsc_precise() - start) / (TURNS * KEEP); \
	}                                                                      \
	qsort(sample, SAMPLES, sizeof(double), by_value);                      \
	printf("row %s %d %.3f\n", name, n, sample[SAMPLES / 2]);              \
} while (0)

#define ROWS(name, turn, pool) do { ROW(name, turn, pool, 1); ROW(name, turn, pool, 4); ROW(name, turn, pool, 32); } while (0)

int main(int argc, char **argv)
{
	if (rte_eal_init(argc, argv) < 0)
		return 1;
	struct rte_mempool *bare = rte_mempool_create("bare", 8191, 2048, 0, 0, NULL, NULL, NULL, NULL, SOCKET_ID_ANY, 0);
	struct rte_mempool *cached = rte_mempool_create("cached", 8191, 2048, 512, 0, NULL, NULL, NULL, NULL, SOCKET_ID_ANY, 0);
	struct rte_mempool *mbufs = rte_pktmbuf_pool_create("mbufs", 8191, 512, 0, 2176, SOCKET_ID_ANY);
	struct rte_mempool *bare_mbufs = rte_pktmbuf_pool_create("bare_mbufs", 8191, 0, 0, 2176, SOCKET_ID_ANY);

	if (!bare || !cached || !mbufs || !bare_mbufs)
		return 1;
	ROWS("mempool-cached", mempool_turn, cached);
	ROWS("mbuf-cached", mbuf_turn, mbufs);
	ROWS("mempool-bare", mempool_turn, bare);
	ROWS("mbuf-bare", mbuf_turn, bare_mbufs);
	return 0;
}
