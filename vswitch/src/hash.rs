//! Keyed hashes. Their secrets are drawn at each start, so that nobody can prepare addresses that collide (S15, S16).

/// Two rounds of a 64 x 64 multiplication folded to 64 bits, each with its own secrets.
#[derive(Clone, Debug)]
pub(crate) struct KeyedHash {
    secret: [u64; 4],
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl KeyedHash {
    /// With these secrets.
    pub(crate) fn new(secret: [u64; 4]) -> Self {
        Self { secret }
    }

    /// With secrets of the system's.
    pub(crate) fn random() -> Self {
        Self::new(draw_secret())
    }

    #[inline(always)]
    pub(crate) fn hash(&self, key: u64) -> u64 {
        let [a, b, c, d] = self.secret;
        fold(fold(key ^ a, b) ^ c, d)
    }

    /// Goes on from the hash of the words before.
    #[inline(always)]
    pub(crate) fn more(&self, before: u64, word: u64) -> u64 {
        fold(before ^ word ^ self.secret[0], self.secret[1])
    }
}

/// From the kernel; on a system without `getrandom`, from the standard library's own hash keys.
fn draw_secret() -> [u64; 4] {
    use std::hash::{BuildHasher, RandomState};
    let mut bytes = [0u8; 32];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    std::array::from_fn(|i| {
        let from_kernel =
            bytes.chunks_exact(8).nth(i).map_or(0, |c| c.iter().fold(0, |w, b| w << 8 | u64::from(*b)));
        let word = if got == bytes.len() { from_kernel } else { RandomState::new().hash_one(i) };
        word | 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s16_secrets_change_the_order_of_buckets() {
        let (one, two) = (KeyedHash::random(), KeyedHash::random());
        let same = (0..10_000u64).filter(|k| one.hash(*k) & 0x3ff == two.hash(*k) & 0x3ff).count();
        assert!(same < 60, "{same} of 10000 in the same one of 1024 buckets: not keyed");
    }

    #[test]
    fn both_halves_spread_neighbouring_keys() {
        let hash = KeyedHash::random();
        for shift in [0, 32] {
            let mut buckets = [0u32; 256];
            for key in 0..65_536u64 {
                buckets[(hash.hash(key << 24) >> shift) as usize & 255] += 1;
            }
            assert!(buckets.iter().all(|n| (150..=370).contains(n)), "uneven: {buckets:?}");
        }
    }
}
