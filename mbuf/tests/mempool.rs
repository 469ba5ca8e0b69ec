//! Mempools: bulks, caches, threads, and the balance at quiet points.

use std::sync::Barrier;
use std::sync::mpsc::sync_channel;

use mbuf::{
    Burst, HEADROOM, LcoreId, MAX_BURST, Mempool, MempoolConfig, MempoolError, NoMbufs, PageSize, ZoneConfig,
};

fn pool(mbufs: usize, cache: usize) -> &'static Mempool {
    let zone = ZoneConfig { name: "test".into(), pages: PageSize::Small4K, ..ZoneConfig::default() };
    Mempool::new(&MempoolConfig { mbufs, cache, zone, ..MempoolConfig::default() }).unwrap()
}

/// Free, cached, out.
fn places(pool: &Mempool) -> (usize, usize, usize) {
    let b = pool.balance();
    assert_eq!(b.free + b.cached + b.out, b.total);
    (b.free, b.cached, b.out)
}

#[test]
fn a_bulk_is_all_or_nothing() {
    let pool = pool(40, 0);
    let mut burst = Burst::new();
    pool.alloc_bulk(&mut burst, 30, 1).unwrap();
    assert_eq!(pool.alloc_bulk(&mut burst, 3, 1), Err(NoMbufs), "the burst has room for 2");
    let mut other = Burst::new();
    assert_eq!(pool.alloc_bulk(&mut other, 11, 2), Err(NoMbufs), "the pool has 10");
    pool.alloc_bulk(&mut other, 10, 2).unwrap();
    assert_eq!(places(pool), (0, 0, 40));
    assert_eq!(pool.balance().out_by_owner, [(1, 30), (2, 10)]);
    burst.truncate(29);
    burst.drop_front(28);
    assert_eq!((burst.len(), places(pool)), (1, (29, 0, 11)));
    drop((burst, other));
    assert_eq!(places(pool), (40, 0, 0));
}

#[test]
fn a_fresh_mbuf_is_fresh_whatever_it_was_before() {
    let pool = pool(1, 0);
    let mut m = pool.alloc(1).unwrap();
    m.append(100).unwrap().fill(1);
    assert!(m.trim_front(7));
    m.set_port(9);
    drop(m.share());
    drop(m);
    let m = pool.alloc(2).unwrap();
    assert_eq!((m.len(), m.data().len(), m.headroom(), m.port()), (0, 0, HEADROOM, 2));
    assert!(m.is_unique() && !m.has_tail() && m.offload().is_none() && m.segment_count() == 1);
    assert!(m.tailroom() >= pool.data_room());
}

#[test]
fn an_lcore_keeps_a_stock_and_gives_it_back() {
    let pool = pool(256, 64);
    let lcore = LcoreId::claim().unwrap();
    let mut burst = Burst::new();
    pool.alloc_bulk(&mut burst, MAX_BURST, 1).unwrap();
    assert_eq!(places(pool), (192, 32, 32));
    burst.clear();
    assert_eq!(places(pool), (192, 64, 0));
    pool.flush_cache(&lcore);
    assert_eq!(places(pool), (256, 0, 0));
}

#[test]
fn bulks_larger_than_the_cache_work() {
    for cache in [0, 1, 2, 31, 32, 33, 512] {
        let pool = pool(128, cache);
        let _lcore = LcoreId::claim();
        for _ in 0..10 {
            let mut bursts = [const { Burst::new() }; 4];
            for burst in &mut bursts {
                pool.alloc_bulk(burst, MAX_BURST, 1).unwrap();
            }
            assert_eq!(places(pool), (0, 0, 128), "cache of {cache}");
            assert!(pool.alloc(1).is_err());
        }
        assert_eq!(places(pool).2, 0, "cache of {cache}");
    }
}

#[test]
fn one_lcore_allocates_another_frees_and_nothing_is_lost() {
    const ROUNDS: usize = 2_000;
    let pool = pool(1024, 128);
    let quiet = Barrier::new(3);
    let (tx, rx) = sync_channel::<Burst<'static>>(8);
    std::thread::scope(|scope| {
        let quiet = &quiet;
        scope.spawn(move || {
            let lcore = LcoreId::claim().unwrap();
            let mut sent = 0;
            while sent < ROUNDS {
                let mut burst = Burst::new();
                if pool.alloc_bulk(&mut burst, 1 + sent % MAX_BURST, 3).is_ok() {
                    tx.send(burst).unwrap();
                    sent += 1;
                }
            }
            quiet.wait();
            quiet.wait();
            pool.flush_cache(&lcore);
        });
        scope.spawn(move || {
            let lcore = LcoreId::claim().unwrap();
            let kept = rx.iter().take(ROUNDS).last().unwrap();
            quiet.wait();
            quiet.wait();
            drop(kept);
            pool.flush_cache(&lcore);
        });
        quiet.wait();
        let balance = pool.balance();
        let kept = 1 + (ROUNDS - 1) % MAX_BURST;
        assert_eq!((balance.out, balance.out_by_owner.as_slice()), (kept, [(3, kept)].as_slice()));
        assert_eq!(balance.free + balance.cached + kept, balance.total);
        quiet.wait();
    });
    assert_eq!(places(pool), (1024, 0, 0));
}

#[test]
fn the_next_holder_of_an_identity_inherits_its_stock() {
    // Other tests claim identities too, so each thread may get another one, and leave a full cache behind.
    let pool = pool(1024, 16);
    for _ in 0..10 {
        std::thread::spawn(move || {
            let _lcore = LcoreId::claim().unwrap();
            drop(pool.alloc(1).unwrap());
        })
        .join()
        .unwrap();
    }
    let (free, cached, out) = places(pool);
    assert!(free + cached == 1024 && out == 0 && cached > 0);
}

#[test]
fn numbers_out_of_range_are_named() {
    let with = |mbufs, data_room, cache| {
        Mempool::new(&MempoolConfig { mbufs, data_room, cache, ..MempoolConfig::default() })
    };
    for (config, what) in
        [(with(0, 2048, 0), "mbufs"), (with(1, 63, 0), "data_room"), (with(1, 64, 513), "cache")]
    {
        assert!(matches!(config, Err(MempoolError::OutOfRange { what: w, .. }) if w == what), "{what}");
    }
    assert!(with(1 << 28, 65_000, 0).is_err_and(|e| matches!(e, MempoolError::Zone(_))), "17 TB");
    let largest = with(2, 65_000, 0).unwrap();
    assert!(largest.alloc(0).unwrap().tailroom() >= 65_000);
}

#[test]
#[should_panic(expected = "owner 65535")]
fn the_tag_of_nobody_cannot_be_an_owner() {
    let _ = pool(1, 0).alloc(u16::MAX);
}

/// S11: copies leave the reserve alone, from a thread with a cache and from one without; receiving takes the last mbuf.
#[test]
fn the_reserve_is_for_receiving() {
    let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
    let config = MempoolConfig { mbufs: 1024, data_room: 64, cache: 16, zone };
    let pool = Mempool::new(&config).unwrap();
    assert_eq!((pool.reserve(), pool.spare()), (128, 896));
    let take_all = || std::iter::from_fn(|| pool.alloc_spare(1).ok()).collect::<Vec<_>>();
    let taken = take_all();
    assert_eq!((taken.len(), pool.spare(), pool.balance().free), (896, 0, 128));
    drop(taken);
    let id = LcoreId::claim().unwrap();
    let taken = take_all();
    let balance = pool.balance();
    // The burst for the lcore's own next visit is in its cache.
    assert_eq!((taken.len(), balance.free, balance.cached), (896 - 32, 128, 32));
    let received: Vec<_> = std::iter::from_fn(|| pool.alloc(2).ok()).collect();
    assert_eq!(received.len(), 128 + 32);
    assert!(taken[0].duplicate().is_err());
    drop((taken, received));
    pool.flush_cache(&id);
    assert_eq!(pool.balance().free, 1024);
}

/// While little is left, a receive queue gets its burst and not a whole cache: others receive, too.
#[test]
fn the_reserve_is_shared_by_bursts() {
    let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
    let config = MempoolConfig { mbufs: 1024, data_room: 64, cache: 256, zone };
    let pool = Mempool::new(&config).unwrap();
    let taken: Vec<_> = std::iter::from_fn(|| pool.alloc_spare(1).ok()).collect();
    assert_eq!(taken.len(), 896);
    let _id = LcoreId::claim().unwrap();
    let mut burst = Burst::new();
    pool.alloc_bulk(&mut burst, 32, 2).unwrap();
    assert_eq!((pool.balance().free, pool.balance().cached), (96, 0));
}
